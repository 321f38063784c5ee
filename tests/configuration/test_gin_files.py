# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Every gin file says what it is for and resolves by its short name; the steps of `gin/runs` trace at full size.

The files of `gin/runs/paper` have further tests of their own.
"""

import dataclasses
import re

import pytest
from class_jax.tasks import STANDARD, Mixture
from gin_runs import MACRO, RUNS, elsewhere, header, resolved, step_key, trace_step

import gin
from class_jax.configuration.gin_files import GIN_FOLDER, configured, gin_files, parse
from class_jax.models.config import ModelConfig
from class_jax.questions.readers import TRAINING_LANGUAGES
from class_jax.synthesis import make_data
from class_jax.synthesis.stage1.simcse import SimcseConfig
from class_jax.training.config import TrainConfig

# A part that others include says so in its first line.
PARTS = {path.name for path in RUNS.glob("*.gin") if "not run by itself" in path.read_text().splitlines()[0]}
FILES = sorted(path.name for path in RUNS.glob("*.gin") if path.name not in PARTS)
HEADER = ("Reproduces", "Command", "Fits", "Expected", "Must be set", "Commonly overridden")


def settings(name: str) -> str:
    """The text of a file and of those that it includes."""
    text = (RUNS / name).read_text(encoding="utf-8")
    included = re.findall(r"^include 'runs/(.*)'$", text, flags=re.MULTILINE)
    return "".join([*(settings(other) for other in included), text])


def test_there_are_files():
    assert {"demo_stage1.gin", "demo_stage2.gin", "real_parallel.gin"} <= set(FILES)
    for part in PARTS:
        including = [name for name in FILES if f"include 'runs/{part}'" in (RUNS / name).read_text()]
        assert including, f"{part} is included by no file"


@pytest.mark.parametrize("name", gin_files())
def test_the_header_is_complete(name):
    text = header(name, GIN_FOLDER)
    assert len(text.splitlines()[0]) > 20
    places = []
    for part in HEADER:
        found = re.search(rf"^# {part}:(?: \S|\n#   \S)", text, flags=re.MULTILINE)
        assert found, part
        places.append(found.start())
    assert places == sorted(places)


@pytest.mark.parametrize("name", FILES)
def test_the_header_says_what_it_is_for(name):
    text = header(name)
    assert f"class-jax train runs/{name}" in text and "--gin.MODEL_DIR=" in text
    [overridden] = re.findall(r"^# Commonly overridden: (.*)$", text, flags=re.MULTILINE)
    for macro in MACRO.findall(overridden):
        assert f"\n{macro} = " in settings(name), f"{macro} is not in the file"


@pytest.mark.parametrize("name", FILES)
def test_the_file_makes_a_configuration(name):
    with resolved(name) as config:
        assert isinstance(config, TrainConfig)
        assert config.batch_size % config.losses.micro_batches == 0
        assert gin.query_parameter("%MODEL_DIR") == "runs/test"
        retrieved = (
            config.teacher.list_length if config.teacher else config.refresh.list_length if config.refresh else 0
        )
        assert not retrieved or retrieved >= config.num_passages


@pytest.mark.parametrize("name", FILES)
def test_the_step_traces_at_full_size(name):
    with resolved(name) as config:
        trace_step(config)


def test_a_file_claims_the_chips_on_which_its_step_was_compiled_and_no_others():
    """What fits is a matter of the step: compiled were those of stage 1 and of the end-to-end objective."""
    proven = set()
    for name in ("stage1.gin", "stage2.gin"):
        with resolved(name) as config:
            proven.add(step_key(config))
    for path in sorted(RUNS.rglob("*.gin")):
        if path.name in PARTS:
            continue
        name = path.relative_to(RUNS).as_posix()
        with resolved(name) as config:
            claims = "not proven on any chip" not in re.search(r"^# Fits: (.*)$", header(name), flags=re.MULTILINE)[1]
            assert claims == (step_key(config) in proven), name


@pytest.mark.parametrize("name", sorted(path.relative_to(RUNS).as_posix() for path in RUNS.rglob("*.gin")))
def test_a_run_names_its_mixture(name):
    if name in PARTS:
        return
    with resolved(name) as config:
        questions = config.data.questions
        assert isinstance(questions, Mixture) and questions.name in STANDARD
        assert gin.query_parameter("%MIXTURE") == questions.name
    with resolved(name) as again:
        assert again == config  # a configuration is a value


@pytest.mark.parametrize("name", [*gin_files("models"), *gin_files("synthesis")])
def test_models_and_the_embedder_resolve_too(name):
    kind = SimcseConfig if name.startswith("synthesis") else ModelConfig
    bindings = [f"{macro} = 'somewhere'" for macro in ("MODEL_DIR", "SENTENCES")]
    bindings += ["model_config.ModelConfig.vocab_size = 100"] if name == "models/tiny.gin" else []
    with elsewhere():
        assert isinstance(configured(kind, [name], bindings), kind)
    gin.clear_config()


@pytest.mark.parametrize("name", gin_files("data"))
def test_files_for_data_resolve_where_there_are_dumps(name, tmp_path):
    for language in ("en", *TRAINING_LANGUAGES):
        for part in ("pages-articles-multistream.xml.bz2", "pages-articles-multistream-index.txt.bz2"):
            (tmp_path / f"{language}wiki-20240101-{part}").touch()
        for table in ("langlinks", "page"):
            (tmp_path / f"{language}wiki-20240101-{table}.sql.gz").touch()
    bindings = [f"DUMPS = {str(tmp_path)!r}", "MODEL = 'somewhere'", "META_MODEL = 'somewhere'"]
    with elsewhere():
        config = make_data.read_configuration([name], bindings)
    assert config.mining and config.anchors and config.questions
    assert set(config.dumps) == set(config.langlinks)
    gin.clear_config()


def test_a_typo_would_be_seen():
    """The check above is as strict as a run: an unknown setting does not pass."""
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert "batch_sise" not in fields
    with resolved(FILES[0]), pytest.raises(ValueError, match="has no setting 'batch_sise'; did you mean 'batch_size'"):
        parse([f"runs/{FILES[0]}"], ["MODEL_DIR = 'runs/test'", "config.TrainConfig.batch_sise = 4"])
