"""What `from mixsup_lib import ...` gives, and the six lines of the README."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import mixsup_lib

ROOT = Path(__file__).resolve().parent.parent
PLANNED = """
    find_cohort prepare make_split select_training_slices BatchSampler Geometry UNet MixedSupervisionUNet class_weights
    segmentation_loss classification_loss joint_loss NormalizedSGD PlateauSchedule Trainer segment dice evaluate
    make_config run load_run collect comparison_table make_phantom
""".split()


def test_public_names_are_documented_and_say_where_they_live():
    assert set(PLANNED) <= set(mixsup_lib.__all__) <= set(dir(mixsup_lib))
    for name in mixsup_lib.__all__:
        found = getattr(mixsup_lib, name)
        assert found.__doc__ and found.__module__.startswith("mixsup_lib."), name


def test_type_checkers_see_the_names_that_are_there():
    source = Path(mixsup_lib.__file__).read_text(encoding="utf-8")
    block = source[source.index("if TYPE_CHECKING:") : source.index("_PLACES")]
    assert sorted(re.findall(r"\w+", " ".join(re.findall(r"import (.*)", block)))) == mixsup_lib.__all__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'diec'"):
        mixsup_lib.diec  # noqa: B018


def test_the_six_lines_of_the_readme_run(tmp_path):
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)[1]
    assert len([line for line in code.splitlines() if line]) == 6
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^(standard|mixed) {'whole_tumor': \d", done.stdout, re.M) == ["standard", "mixed"]
