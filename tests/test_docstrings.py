"""Docstrings: their examples run, and they name what a signature has, in the Hugging Face format."""

import dataclasses
import doctest
import functools
import importlib
import inspect
import json
import pkgutil
import re
import typing

import pytest
from transformers import PreTrainedConfig
from transformers.utils import ModelOutput
from transformers.video_processing_utils import VideoProcessorMixin
from transformers.video_utils import VideoMetadata

import microemo.configuration
import microemo.evaluation
import microemo.inference
import microemo.inference.formats
import microemo.modeling_microemo
import microemo.processing.decoding
import microemo.processing.faces
import microemo.processing.utterance_formats
import microemo.publishing
import microemo.training.corpora
import microemo.training.from_scratch
import microemo.training.synthetic
import microemo.utils
from microemo.processing.video_processing_microemo import FIELDS

MODULES = [
    *(
        f"{room.__name__}.{module.name}"
        for room in (
            microemo.configuration,
            microemo.evaluation,
            microemo.modeling_microemo,
            microemo.publishing,
            microemo.utils,
        )
        for module in pkgutil.iter_modules(room.__path__)
    ),
    *(
        f"{room.__name__}.{module.name}"
        for room in (
            microemo.inference,
            microemo.inference.formats,
            microemo.processing,
            microemo.processing.decoding,
            microemo.processing.faces,
            microemo.processing.utterance_formats,
            microemo.training,
            microemo.training.corpora,
            microemo.training.from_scratch,
            microemo.training.synthetic,
        )
        for module in pkgutil.iter_modules(room.__path__)
        if not module.ispkg
    ),
    "microemo.commands.shared_options",
]
# Their examples name a model and files that only a user has.
EXAMPLES_WITH_A_MODEL = {
    "microemo.inference.emotion_pipeline.EmotionPipeline",
    "microemo.modeling_microemo.modeling_microemo.MicroEmoForConditionalGeneration.forward",
    "microemo.processing.video_processing_microemo.MicroEmoVideoProcessor",
    "microemo.training.collator.MicroEmoCollator",
    "microemo.training.feature_cache.FeatureCache",
}


def public_members():
    """Yields name and value of every public function, class and method that the modules define."""
    for module_name in MODULES:
        for name, value in vars(importlib.import_module(module_name)).items():
            if name.startswith("_") or getattr(value, "__module__", None) != module_name:
                continue
            if inspect.isfunction(value):
                yield f"{module_name}.{name}", value
            elif inspect.isclass(value):
                yield f"{module_name}.{name}", value
                for method_name in vars(value):
                    method = getattr(value, method_name)
                    is_method = inspect.isroutine(method) and not isinstance(method, functools.cached_property)
                    if not method_name.startswith("_") and is_method:
                        yield f"{module_name}.{name}.{method_name}", method


MEMBERS = dict(public_members())


def examples_of(docstring):
    """Returns the fenced Python blocks of a docstring."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```", docstring, re.DOTALL | re.MULTILINE))


def is_documented_by_help(value):
    """Whether every field of a dataclass has a `help`, as those of `TrainingArguments` do."""
    return dataclasses.is_dataclass(value) and all("help" in field.metadata for field in dataclasses.fields(value))


def documented_names(docstring, heading):
    """Returns name -> what follows it, of an `Args:` or `Attributes:` list."""
    section = re.search(rf"^{heading}:\n(.*?)(?=^\S|\Z)", docstring, re.DOTALL | re.MULTILINE)
    entries = re.findall(r"^    (\w+) \((.*?)\):(?=\s)", section[1], re.MULTILINE) if section else []
    return dict(entries)


def is_unpacked(parameter):
    """Whether the annotation of `**kwargs` is `Unpack[...]`."""
    return typing.get_origin(parameter.annotation) is typing.Unpack


WITH_EXAMPLES = {name for name, value in MEMBERS.items() if examples_of(inspect.getdoc(value) or "")}


@pytest.mark.parametrize("name", sorted(WITH_EXAMPLES - EXAMPLES_WITH_A_MODEL))
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = examples_of(inspect.getdoc(MEMBERS[name]))
    assert ">>>" in examples
    test = doctest.DocTestParser().get_doctest(examples, {}, name, None, None)
    printed = []
    results = doctest.DocTestRunner(verbose=False).run(test, out=printed.append)
    assert results.failed == 0, "".join(printed)


@pytest.mark.parametrize("name", MEMBERS)
def test_docstrings_name_what_the_signature_has(name):
    value = MEMBERS[name]
    docstring = inspect.getdoc(value) or ""
    if typing.is_typeddict(value) and not docstring[:1].isupper():  # in Transformers' form: the keywords alone
        entries = dict(re.findall(r"^(\w+) \((.*?)\):$", docstring, re.MULTILINE))
        assert entries and entries.keys() <= value.__annotations__.keys()
        assert all("*optional*" in entry for entry in entries.values())
        return

    assert re.match(r"[A-Z`|].*?\.(?=\s|$)", docstring, re.DOTALL), "the first sentence says what it does"
    if inspect.isclass(value) and (issubclass(value, BaseException) or value.__base__ in MEMBERS.values()):
        return  # an error, or an adapter whose base class is documented

    if (
        inspect.isclass(value)
        and "__init__" not in vars(value)
        and value.__base__.__module__.startswith(("peft", "torch", "transformers"))
    ):
        return  # the library documents what the class takes

    if typing.is_typeddict(value):
        return

    if inspect.isclass(value) and issubclass(value, VideoProcessorMixin):
        documented = documented_names(docstring, "Args")
        assert documented.keys() == set(FIELDS) and all("*optional*" in entry for entry in documented.values())
        return

    if inspect.isclass(value) and issubclass(value, PreTrainedConfig):
        annotations = vars(value)["__annotations__"].items()
        fields = {
            name: vars(value)[name] for name, hint in annotations if typing.get_origin(hint) is not typing.ClassVar
        }
        documented = documented_names(docstring, "Args")
        assert list(documented) == list(fields)
        for name, entry in documented.items():
            default = "" if fields[name] is None else f", defaults to `?{re.escape(json.dumps(fields[name]))}`?"
            assert re.search(rf"\*optional\*{default.replace('true', 'True').replace('false', 'False')}$", entry), name
        return

    if inspect.isclass(value) and issubclass(value, ModelOutput):
        assert documented_names(docstring, "Args").keys() >= vars(value)["__annotations__"].keys()
        return

    if inspect.isclass(value) and issubclass(value, VideoMetadata):
        assert documented_names(docstring, "Attributes").keys() == typing.get_type_hints(value).keys()
        return

    if (dataclasses.is_dataclass(value) and value.__base__ is not object) or is_documented_by_help(value):
        own = {
            field.name: field for field in dataclasses.fields(value) if field.name in vars(value)["__annotations__"]
        }
        assert all(re.match(r"[A-Z].*\.$", field.metadata["help"]) for field in own.values())
        return

    if dataclasses.is_dataclass(value) or getattr(value, "_is_protocol", False):
        fields = typing.get_type_hints(value)
        assert documented_names(docstring, "Attributes").keys() == fields.keys()
        return

    signature = inspect.signature(value)
    # Transformers' `auto_docstring` lists a model's own parameters, and no keywords of a `TypedDict`.
    unpacked = {name for name, parameter in signature.parameters.items() if is_unpacked(parameter)}
    parameters = {
        name: parameter for name, parameter in signature.parameters.items() if name not in {"self", *unpacked}
    }
    documented = documented_names(docstring, "(?:Args|Parameters)")
    documented = {name: entry for name, entry in documented.items() if name not in unpacked}
    assert list(documented) == list(parameters)
    for name, parameter in parameters.items():
        is_optional = parameter.default is not parameter.empty or parameter.kind is parameter.VAR_KEYWORD
        assert ("*optional*" in documented[name]) == is_optional, name
        if default := re.search(r"defaults to `?(.+?)`?$", documented[name]):
            value_of_default = getattr(parameter.default, "__name__", None) or repr(parameter.default)
            assert default[1] == value_of_default.replace("'", '"'), name

    if inspect.isroutine(value):
        has_type = re.search(r"^(Returns|Yields):\n    \[?`", docstring, re.MULTILINE) is not None
        assert has_type == (signature.return_annotation not in (None, "None")), "Returns, with a type"
