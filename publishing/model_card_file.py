"""The model card of a checkpoint: a template that is filled from what conversion, training and evaluation left behind.

A card that somebody wrote or edited keeps every byte, except for the parts between the marks that the template sets and for
metadata that is missing.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, StrictUndefined

from ..utils.checkpoint_files import ADAPTER_CONFIG, ADAPTER_MODEL_CONFIG, CARD, CONVERSION_REPORT, RUN_FACTS
from ..utils.files import read_json, read_json_lines, read_text
from .completeness import FolderContent

TEMPLATE = Path(__file__).with_name("model_card_template.md")
# `pipeline(model=...)` asks the Hub for it. Transformers does not know "video-text-to-text", and its "any-to-any" needs torchvision.
PIPELINE_TAG = "image-text-to-text"
TAGS = ["microemo", "emotion-recognition", "video-text-to-text", "audio-text-to-text"]
NOT_STATED = "not stated"

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
PART = re.compile(r"<!-- microemo:begin (\w+)[^\n]*-->\n.*?<!-- microemo:end \1 -->", re.DOTALL)
FRONT_MATTER = re.compile(r"\A\s*---[^\S\n]*\n(.*?)^---[^\S\n]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
# What PEFT adds to the empty card of `huggingface_hub`.
ADDED_BY_PEFT = re.compile(
    r"(### Framework versions|## Training procedure|- PEFT [\w.+-]+|The following `bitsandbytes` .*|- [a-z_0-9]+: .*|\s*)"
)

# The figures of `microemo evaluate score --json` that a card shows, and the factor to their unit.
METRICS = {
    "S/precision": ("Accuracy_S", 100),
    "S/recall": ("Recall_S", 100),
    "S/avg": ("Avg", 100),
    "S/f": ("F_S", 100),
    "M-avg": ("M-avg", 100),
    "EW/f": ("EW", 100),
    "labels": ("labels per answer", 1),
}
# What the parts of converted weights are, by the words of the conversion's report. Only licences that are known are named.
SOURCES = {
    "image encoder": ("EVA-CLIP ViT-g/14 (Sun et al., arXiv 2303.15389)", "see https://github.com/baaivision/EVA"),
    "image Q-Former": (
        "InstructBLIP (Dai et al., arXiv 2305.06500) or BLIP-2 (Li et al., arXiv 2301.12597)",
        "see https://github.com/salesforce/LAVIS",
    ),
    "video branch": (
        "Video-LLaMA (Zhang et al., arXiv 2306.02858) or a model made from it",
        "see https://github.com/DAMO-NLP-SG/Video-LLaMA",
    ),
    "audio branch": (
        "Video-LLaMA (Zhang et al., arXiv 2306.02858) or a model made from it",
        "see https://github.com/DAMO-NLP-SG/Video-LLaMA",
    ),
    "ImageBind audio tower": ("ImageBind (Girdhar et al., arXiv 2305.05665)", "CC-BY-NC 4.0"),
}


def make_card(
    content: FolderContent,
    repo_id: str,
    license: str | None = None,
    base_model: str | None = None,
    evaluations: Iterable[str | Path] = (),
) -> str:
    """Makes the model card of a folder, or brings the one that it holds up to date. Nothing is written.

    Args:
        content ([`FolderContent`]): The folder, as [`read_folder`] describes it.
        repo_id (`str`): The name of the repository, `"ORG/NAME"`.
        license (`str`, *optional*): The licence of the weights, as the Hub names it. By default that of the card.
        base_model (`str`, *optional*): The Hub id of the base model. By default the one that the folder names.
        evaluations (`Iterable[str | Path]`, *optional*):
            Files of `microemo evaluate score --json`, in addition to `evaluation*.json` and `evaluation*.jsonl` in the folder.

    Returns:
        `str`: The text of `README.md`.

    Raises:
        ValueError: if one of the files that the facts are read from cannot be read.
    """
    folder = content.folder
    scores = [row for path in _evaluation_files(folder, evaluations) for row in _read_scores(path)]
    written = read_text(folder / CARD) if (folder / CARD).is_file() else ""
    license = license or read_metadata(written).get("license")
    metadata = _metadata(content, repo_id, license, base_model or base_of(content), scores)
    if not written.strip() or is_untouched(written, _read(folder / RUN_FACTS)):
        return f"---\n{_to_yaml(metadata)}---\n\n{_render(content, repo_id, metadata, scores)}"
    text = _merge_metadata(written, metadata)
    fresh = {match[1]: match[0] for match in PART.finditer(_render(content, repo_id, read_metadata(text), scores))}
    return PART.sub(lambda match: fresh.get(match[1], match[0]), text)


def base_of(content: FolderContent) -> str | None:
    """Returns the Hub id of the base model that a folder names, or `None`. The name of a local folder is no such id.

    Args:
        content ([`FolderContent`]): The folder.

    Returns:
        `str` or `None`: The Hub id.
    """
    named = _read(content.folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not content.is_adapter:
        named = _read(content.folder / RUN_FACTS).get("base model")
    is_id = isinstance(named, str) and HUB_ID.fullmatch(named) and not Path(named).exists()
    return str(named) if is_id else None


def card_problems(text: str, is_adapter: bool) -> list[str]:
    """Finds what the metadata of a model card lacks, and what the Hub would refuse.

    Args:
        text (`str`): The card.
        is_adapter (`bool`): Whether it is that of an adapter.

    Returns:
        `list[str]`: The problems, a sentence each.
    """
    try:
        metadata = read_metadata(text)
        data = ModelCard(text).data
    except Exception as error:  # of YAML, or of huggingface_hub for a model-index that is none
        return [f"{CARD}: the metadata cannot be read ({error})"]
    problems = []
    licences = data.get("license")
    if licences is None:
        problems.append(f"the licence is not stated; pass --license, such as apache-2.0, or write it to {CARD}")
    for licence in licences if isinstance(licences, list) else [licences]:
        if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", str(licence)):
            problems.append(f"{CARD}: license {licence!r} is no name that the Hub knows, such as apache-2.0 or other")
    if licences == "other" and not (data.get("license_name") and data.get("license_link")):
        problems.append(f"{CARD}: license: other needs license_name and license_link beside it")
    for key in ("library_name", "pipeline_tag"):
        if not metadata.get(key):
            problems.append(f"{CARD}: {key} is missing")
    bases = data.get("base_model") or []
    for base in bases if isinstance(bases, list) else [bases]:
        if not HUB_ID.fullmatch(str(base)):
            problems.append(f"{CARD}: base_model {base!r} is not the id of a model on the Hub")
    data_sets = data.get("datasets") or []
    for data_set in data_sets if isinstance(data_sets, list) else [data_sets]:
        if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", str(data_set)) or data_set is None:
            problems.append(f"{CARD}: datasets {data_set!r} is not the id of a data set on the Hub")
    if is_adapter and not bases:
        problems.append(f"{CARD}: base_model is missing")
    if text.count("<!-- microemo:begin ") != text.count("<!-- microemo:end "):
        problems.append(f"{CARD}: a part that begins with <!-- microemo:begin ... --> does not end, or the reverse")
    return problems


def read_metadata(text: str) -> dict:
    """Reads the YAML block at the top of a model card.

    Args:
        text (`str`): The card.

    Returns:
        `dict`: The metadata; empty where there is no block.

    Raises:
        ValueError: if the block is no YAML mapping.
    """
    match = FRONT_MATTER.match(text)
    try:
        metadata = yaml.safe_load(match[1]) if match else {}
    except yaml.YAMLError as error:
        raise ValueError(f"no YAML: {error}") from None
    if not isinstance(metadata or {}, dict):
        raise ValueError("no YAML mapping between the --- lines")
    return metadata or {}


def is_untouched(text: str, run: dict) -> bool:
    """Tells whether nobody has written in a card: whether it is as PEFT, the `Trainer` or `microemo train` left it.

    Args:
        text (`str`): The card.
        run (`dict`): What `training_run.json` holds.

    Returns:
        `bool`: Whether the card may be replaced.
    """
    if "generated automatically according to the information the Trainer had access to" in text:
        return True  # by a comment that asks to be removed when somebody completes the card
    if run.get("card_sha256") == hashlib.sha256(text.encode()).hexdigest():
        return True
    body = FRONT_MATTER.sub("", text, count=1)
    template = set(ModelCard.from_template(ModelCardData()).text.splitlines())
    added = [line for line in body.splitlines() if line not in template]
    return "[More Information Needed]" in body and all(ADDED_BY_PEFT.fullmatch(line) for line in added)


# --- facts ---------------------------------------------------------------------------------------------------------


def _read(path: Path) -> dict:
    return read_json(path) if path.is_file() else {}


def _evaluation_files(folder: Path, further: Iterable[str | Path]) -> list[Path]:
    return [*sorted([*folder.glob("evaluation*.json"), *folder.glob("evaluation*.jsonl")]), *map(Path, further)]


def _read_scores(path: Path) -> list[dict]:
    """Reads what `microemo evaluate score --json` printed: an object a line."""
    rows = read_json_lines(path)
    for row in rows:
        if not isinstance(row.get("scores"), dict) or not isinstance(row.get("n"), int):
            raise ValueError(f"{path}: expected the output of `microemo evaluate score --json`, with scores and n")
    return rows


def _data_name(row: dict) -> str:
    return Path(str(row.get("references") or NOT_STATED)).stem


def _metadata(
    content: FolderContent, repo_id: str, license: str | None, base_model: str | None, scores: list[dict]
) -> dict[str, Any]:
    name = repo_id.rpartition("/")[2]
    data_set = _read(content.folder / RUN_FACTS).get("training data set")
    results = [
        EvalResult(
            task_type=PIPELINE_TAG,
            task_name="Open-vocabulary emotion recognition",
            dataset_type=re.sub(r"[^a-z0-9]+", "-", _data_name(row).lower()).strip("-"),
            dataset_name=_data_name(row),
            metric_type=re.sub(r"[^a-z0-9]+", "-", METRICS[key][0].lower()),
            metric_name=METRICS[key][0],
            metric_value=round(METRICS[key][1] * row["scores"][key][0], 2),
            metric_args={
                "confidence_interval_95": [round(METRICS[key][1] * end, 2) for end in row["scores"][key][1:]]
            },
        )
        for row in scores
        for key in METRICS
        if key in row["scores"] and key != "labels"  # which is no measure of quality
    ]
    data = ModelCardData(
        license=license,
        library_name="peft" if content.is_adapter else "transformers",
        pipeline_tag=PIPELINE_TAG,
        base_model=base_model,
        datasets=[data_set] if data_set and HUB_ID.fullmatch(data_set) else None,
        tags=TAGS,
        model_name=name if results else None,  # without results there is no model-index
        eval_results=results or None,
    )
    return data.to_dict()


def _to_yaml(metadata: dict) -> str:
    return yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)


def _merge_metadata(text: str, ours: dict) -> str:
    """Adds to the YAML block what is missing there, and our results to its model-index. The rest stays as it is."""
    match = FRONT_MATTER.match(text)
    if match is None:
        return f"---\n{_to_yaml(ours)}---\n\n{text}"
    theirs = read_metadata(text)
    missing = {key: value for key, value in ours.items() if theirs.get(key) is None}
    block = match[1]
    index = "model-index"
    if index in ours and index not in missing:
        merged = _merge_results(theirs, ours)
        if merged != theirs[index]:
            block = re.sub(rf"^{index}:.*?(?=^[^\s#-]|\Z)", "", block, flags=re.DOTALL | re.MULTILINE)
            missing[index] = merged
    if not missing:
        return text
    separator = "" if not block or block.endswith("\n") else "\n"
    return text[: match.start(1)] + block + separator + _to_yaml(missing) + text[match.end(1) :]


def _merge_results(theirs: dict, ours: dict) -> list[dict]:
    """Puts our results beside theirs; one of ours takes the place of theirs for the same data and metric."""
    old, new = ModelCardData(**theirs), ModelCardData(**ours)
    kept = [
        result
        for result in old.eval_results or []
        if not any(
            (result.dataset_type, result.metric_type) == (other.dataset_type, other.metric_type)
            for other in new.eval_results or []
        )
    ]
    merged = ModelCardData(model_name=old.model_name, eval_results=[*kept, *(new.eval_results or [])])
    return merged.to_dict()["model-index"]


# --- text ----------------------------------------------------------------------------------------------------------


def _render(content: FolderContent, repo_id: str, metadata: dict, scores: list[dict]) -> str:
    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined, autoescape=False
    )
    bases = metadata.get("base_model")
    base_model = ", ".join(bases) if isinstance(bases, list) else bases
    run = _read(content.folder / RUN_FACTS)
    what = f"An adapter for {base_model or 'a base model that is not stated'}, a MicroEmo model"
    if not content.is_adapter:
        what = "A MicroEmo model" + (f" made from {base_model}" if base_model else "")
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        name=repo_id.rpartition("/")[2],
        repo_id=repo_id,
        is_adapter=content.is_adapter,
        has_code=not content.is_adapter,
        what=what,
        model=_cells(_model_rows(content, base_model)),
        training=_cells(_training_rows(run)),
        evaluations=[_cells(row) for row in _score_rows(scores)],
        evaluation_notes=sorted({str(note) for row in scores for note in row.get("notes", {}).get("differs", ())}),
        license=", ".join(map(str, licence)) if isinstance(licence := metadata.get("license"), list) else licence,
        sources=[_cells(row) for row in _source_rows(content, base_model)],
    )
    return text.lstrip("\n")


def _cells(row: dict) -> dict:
    """The values of a row as the cells of a table in Markdown."""
    return {key: re.sub(r"\s+", " ", str(value)).replace("|", r"\|") for key, value in row.items()}


def _read_config(content: FolderContent) -> dict:
    """The model's configuration; for an adapter that PEFT alone saved, that of its base where it is a folder here."""
    if not content.is_adapter:
        return _read(content.folder / "config.json")
    base = _read(content.folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    return _read(content.folder / ADAPTER_MODEL_CONFIG) or (_read(Path(base, "config.json")) if base else {})


def _model_rows(content: FolderContent, base_model: str | None) -> dict:
    config = _read_config(content)
    text = config.get("text_config") or {}
    rows = {"base model": base_model or NOT_STATED}
    if content.is_adapter:
        adapter = _read(content.folder / ADAPTER_CONFIG)
        rows["adapter"] = f"{adapter.get('peft_type', NOT_STATED)}, rank {adapter.get('r', NOT_STATED)}"
    layers, width = text.get("num_hidden_layers", NOT_STATED), text.get("hidden_size", NOT_STATED)
    rows["language model"] = f"{text.get('model_type', NOT_STATED)}, {layers} layers of width {width}"
    rows["type of the weights"] = config.get("dtype") or NOT_STATED
    windows, view = config.get("windows", NOT_STATED), config.get("local_view", NOT_STATED)
    rows["windows of the video Q-Former"] = windows
    rows["local view"] = view
    rows["size of the files"] = f"{sum(path.stat().st_size for path in content.files.values()) / 1e6:,.1f} MB"
    return rows


def _training_rows(run: dict) -> dict:
    """What a run stated; what everybody asks for is there in any case, and unknown where it is."""
    asked = ("base model", "training data", "licence and consent of the data", "steps", "duration", "hardware", "seed")
    known = {key: value for key, value in run.items() if key not in ("card_sha256", "training data set")}
    return {**dict.fromkeys(asked, NOT_STATED), **known}


def _score_rows(scores: list[dict]) -> Iterable[dict]:
    for row in scores:
        for key, (metric, factor) in METRICS.items():
            if key in row["scores"]:
                value, low, high = (f"{factor * figure:.2f}" for figure in row["scores"][key])
                yield {
                    "data": _data_name(row),
                    "clips": row["n"],
                    "metric": metric,
                    "value": value,
                    "interval": f"{low} to {high}",
                }


def _source_rows(content: FolderContent, base_model: str | None) -> Iterable[dict]:
    if base_model:
        yield {"name": base_model, "used_for": "base model", "licence": f"see https://huggingface.co/{base_model}"}
    for source in _read(content.folder / CONVERSION_REPORT).get("sources", []):
        known = [SOURCES[part] for part in source.get("holds", []) if part in SOURCES]
        names = "; ".join(dict.fromkeys(name for name, _ in known))
        licences = (
            source.get("licence") or source.get("license") or "; ".join(dict.fromkeys(text for _, text in known))
        )
        yield {
            "name": f"{source.get('file', NOT_STATED)}" + (f": {names}" if names else ""),
            "used_for": ", ".join(source.get("holds", [])) or NOT_STATED,
            "licence": licences or NOT_STATED,
        }
    yield {
        "name": "MicroEmo (Zhang et al., arXiv 2407.16552)",
        "used_for": "the method",
        "licence": "Apache-2.0 (code)",
    }
