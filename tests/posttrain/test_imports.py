"""From a name to an object: what is found, what is bound, and the one line for everything else."""

import inspect
import pickle
import subprocess
import sys

import pytest

from posttrain.errors import Mistake
from posttrain.imports import Use, check_arguments, load_object, resolve_path, wrong_arguments

CODE = '''
loaded = []
def scale(x, *, by=2, **columns):
    """Doc."""
    return [one * by for one in x]
class Box:
    def __init__(self, size, lid=True):
        self.size, self.lid = size, lid
    class Inner:
        pass
number = 5
'''


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path / "mine.py"


def test_short_names_and_paths():
    short = {"grpo": "a.b:C", "dpo": "a.b:D"}
    assert resolve_path("grpo", short) == "a.b:C"
    assert resolve_path("x.y:z", short) == "x.y:z"
    with pytest.raises(Mistake) as caught:
        resolve_path("grop", short, "trainer.algorithm")
    assert str(caught.value) == (
        'trainer.algorithm: "grop" is not known; did you mean "grpo"? Use one of dpo, grpo, or an import path '
        "(package.module:object or file.py:object)"
    )


def test_objects_of_modules_and_files(file):
    assert load_object("json:dumps") is __import__("json").dumps
    assert load_object("collections:OrderedDict.fromkeys") == __import__("collections").OrderedDict.fromkeys
    assert load_object("mine.py:Box") is load_object(f"{file}:Box"), "a file is imported once, however it is named"
    assert load_object("mine.py:Box.Inner").__qualname__ == "Box.Inner"


def test_two_files_of_one_name_are_two_modules(file, tmp_path):
    other = tmp_path / "sub" / "mine.py"
    other.parent.mkdir()
    other.write_text("number = 7")
    assert (load_object("mine.py:number"), load_object(f"{other}:number")) == (5, 7)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("mine.py:bxo", 'w: mine.py has no "bxo"'),
        ("mine.py:box", 'w: mine.py has no "box"; did you mean "Box"?'),
        ("other.py:f", "w: no file other.py (looked in {here})"),
        ("no.such:f", 'w: no module "no" (asked for no.such); is it installed, is the name right?'),
        ("mine", 'w: "mine" is not an import path (package.module:object or file.py:object)'),
        (":f", 'w: ":f" is not an import path (package.module:object or file.py:object)'),
        ("bad.py:f", "w: bad.py could not be imported: ZeroDivisionError: division by zero"),
        ("leaves.py:f", "w: leaves.py could not be imported: SystemExit: 3"),
    ],
)
def test_what_is_not_there(file, tmp_path, path, message):
    (tmp_path / "bad.py").write_text("1 / 0")
    (tmp_path / "leaves.py").write_text("import sys; sys.exit(3)")
    with pytest.raises(Mistake) as caught:
        load_object(path, "w")
    assert str(caught.value) == message.replace("{here}", str(tmp_path))


def test_a_file_that_failed_can_be_mended_and_tried_again(file, tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("1 / 0")
    with pytest.raises(Mistake):
        load_object("bad.py:f")
    bad.write_text("f = 1  # mended")
    assert load_object("bad.py:f") == 1


class TestUse:
    def test_a_function_gets_its_arguments_bound(self, file):
        bound = Use("mine.py:scale", {"by": 3}).build()
        assert bound(x=[1, 2], answer=["a", "b"]) == [3, 6]
        assert (bound.__name__, bound.__doc__) == ("scale", "Doc.")
        assert inspect.signature(bound).parameters["by"].default == 3
        assert Use("mine.py:scale").build() is load_object("mine.py:scale")

    def test_a_class_is_constructed(self, file):
        box = Use("mine.py:Box", {"lid": False}).build(size=3)
        assert (box.size, box.lid) == (3, False)

    def test_anything_else_is_as_it_is(self, file):
        assert Use("mine.py:number").build() == 5
        with pytest.raises(Mistake, match="is not callable, so it takes no `with`"):
            Use("mine.py:number", {"a": 1}).build()

    @pytest.mark.parametrize(
        ("use", "extra", "message"),
        [
            (Use("mine.py:Box", {}, "w"), {}, "w.with: Box needs size"),
            (Use("mine.py:Box", {"sise": 1}, "w"), {}, 'w.with.sise: unknown argument of Box; did you mean "size"?'),
            (Use("mine.py:Box", {"size": 1}, "w"), {"size": 2}, "w.with.size: is given by posttrain; leave it out"),
        ],
    )
    def test_arguments_that_do_not_fit(self, file, use, extra, message):
        with pytest.raises(Mistake) as caught:
            use.build(**extra)
        assert str(caught.value) == message

    def test_it_travels_to_another_process(self, file):
        """The path travels, the object is built there."""
        use = Use(f"{file}:scale", {"by": 4}, "w")
        code = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read()).build()(x=[5]))"
        done = subprocess.run(
            [sys.executable, "-c", code], input=pickle.dumps(use), capture_output=True, check=True, cwd="/"
        )
        assert done.stdout.strip() == b"[20]"


def test_signatures():
    def f(a, /, b, *c, d=1): ...

    assert wrong_arguments(f, {"b": 1, "d": 2}, complete=True) == []
    assert wrong_arguments(f, {"a": 1}, complete=False) == [("a", "unknown argument of f; it takes b, d")]
    assert wrong_arguments(f, {}, complete=True) == [(None, "f needs b")]
    assert wrong_arguments(lambda **k: 0, {"x": 1}, complete=True) == []
    assert wrong_arguments(min, {"anything": 1}, complete=True) == [], (
        "a builtin without a signature cannot be checked"
    )
    check_arguments(f, {"b": 1}, "w", complete=True)
