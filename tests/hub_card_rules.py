"""What the Hub checks in the metadata of a model card: a part of its rules, for the stand-in of `hub_stand_in.py`."""

import re

import yaml

# Some of the values that the Hub accepts in a card.
LICENSES = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc0-1.0", "llama2", "openrail", "other"}
PIPELINE_TAGS = {"any-to-any", "image-text-to-text", "text-generation", "video-classification", "video-text-to-text"}


def card_data(card: str) -> object:
    """The YAML block at the top of a card, or `None`."""
    match = re.match(r"\s*---[^\S\n]*\n(.*?)\n?---[^\S\n]*(\n|$)", card, re.DOTALL)
    return yaml.safe_load(match[1]) if match else None


def card_errors(card: str) -> list[str]:
    """What the Hub has to say against the YAML of a model card."""
    try:
        data = card_data(card)
    except yaml.YAMLError as error:
        return [f"YAML: {error}"]
    if data is None:
        return []
    if not isinstance(data, dict):
        return ["YAML: expected a mapping"]
    errors = []
    licences = data.get("license")
    for licence in licences if isinstance(licences, list) else [licences]:
        if licence is not None and licence not in LICENSES:
            errors.append(f'"license" must be one of {sorted(LICENSES)}')
    if data.get("pipeline_tag", "any-to-any") not in PIPELINE_TAGS:
        errors.append(f'"pipeline_tag" must be one of {sorted(PIPELINE_TAGS)}')
    if data.get("sdk") is not None:
        colors = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
        errors += [f'"{key}" is not valid' for key in ("colorFrom", "colorTo") if data.get(key) not in colors]
        if not re.fullmatch(r"\d+\.\d+\.\d+", str(data.get("sdk_version"))):
            errors.append('"sdk_version" is not valid')
    bases = data.get("base_model") or []
    for base in bases if isinstance(bases, list) else [bases]:
        if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", str(base)):
            errors.append(f'"base_model" with value "{base}" is not valid. Use a model id from https://hf.co/models.')
    for data_set in data.get("datasets") or []:
        if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", str(data_set)):
            errors.append(
                f'"datasets" with value "{data_set}" is not valid. Use a dataset id from https://hf.co/datasets.'
            )
    if not all(isinstance(tag, str) for tag in data.get("tags") or []):
        errors.append('"tags" must be an array of strings')
    for number, model in enumerate(data.get("model-index") or []):
        where = f'"model-index[{number}]'
        if not model.get("name"):
            errors.append(f'{where}.name" is required')
        for result in model.get("results") or [None]:
            if result is None or not (result.get("task") or {}).get("type"):
                errors.append(f'{where}.results[].task.type" is required')
            elif not {"type", "name"} <= set(result.get("dataset") or {}):
                errors.append(f'{where}.results[].dataset" needs a type and a name')
            elif not result.get("metrics") or any({"type", "value"} - set(metric) for metric in result["metrics"]):
                errors.append(f'{where}.results[].metrics[].value" is required')
    return errors
