"""Files of scales, against the bytes that 2Dto2D-DLE writes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from map2map.errors import ArtefactError
from map2map.scale_files import as_text, read_scales, write_scales

F2 = {"thk": 2000.0, "slopsurfx": 1.5, "slopsurfy": 1.5}


def test_the_files_of_f2_have_the_published_bytes(tmp_path):
    write_scales(tmp_path / "fieldin.dat", F2)
    data = (tmp_path / "fieldin.dat").read_bytes()
    first = bytes.fromhex("74 68 6b 20 32 30 30 30 2e 30 30 30 30 30 30 20 0a")
    assert data == first + b"slopsurfx 1.500000 \nslopsurfy 1.500000 \n"
    assert len(data) == 57
    write_scales(tmp_path / "fieldout.dat", {"ubar": 1000, "vbar": 1000})
    assert len((tmp_path / "fieldout.dat").read_bytes()) == 36
    assert list(read_scales(tmp_path / "fieldin.dat").items()) == list(F2.items())


@given(scale=st.floats(0, exclude_min=True, allow_nan=False, allow_infinity=False))
def test_no_digit_of_a_scale_is_lost(tmp_path_factory, scale):
    path = tmp_path_factory.mktemp("scales") / "fieldin.dat"
    write_scales(path, {"x": scale})
    assert read_scales(path) == {"x": scale}


def test_six_decimals_are_kept_where_they_are_enough():
    assert as_text({"a": 0.25, "b": 1e-6}) == "a 0.250000 \nb 0.000001 \n"
    # the original writes 0.000000 and reads a zero
    assert as_text({"c": 4e-7}) == "c 4e-07 \n"
    assert as_text({"d": 0.12345678}) == "d 0.12345678 \n"


def test_what_follows_a_scale_is_ignored(tmp_path):
    (tmp_path / "a.dat").write_text("  thk\t2e3 m ice\r\nubar 1000\n\n \n")
    assert read_scales(tmp_path / "a.dat") == {"thk": 2000.0, "ubar": 1000.0}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("thk 2000\n\nubar 1000\n", r"a.dat, line 2: found '', expected a name and a scale"),
        ("thk 2000\nubar\n", r"line 2: found 'ubar', expected a name and a scale, such as"),
        ("thk x\n", r"line 1: the scale 'x' is not a number"),
        ("a 1\nthk 0.000000 \n", r"line 2: cannot divide by the scale 0.000000; give a typical"),
        ("a 1\nthk -2000\n", r"a.dat, line 2: the scale -2000 is negative; give .* positive"),
        ("thk -inf\n", r"line 1: the scale -inf is negative"),
        ("thk inf\n", r"line 1: cannot divide by the scale inf"),
        ("thk nan\n", r"line 1: cannot divide by the scale nan"),
        ("thk 1\nb 1\nthk 2\n", r"line 3: field 'thk' is there twice"),
        ("", r"a.dat is empty"),
        ("\n\n", r"a.dat is empty"),
    ],
)
def test_a_malformed_line_is_named_by_its_number(tmp_path, text, words):
    (tmp_path / "a.dat").write_text(text)
    with pytest.raises(ArtefactError, match=words):
        read_scales(tmp_path / "a.dat")


def test_missing_files_and_files_that_are_no_text_are_told(tmp_path):
    with pytest.raises(ArtefactError, match=r"there is no file .*a\.dat"):
        read_scales(tmp_path / "a.dat")
    (tmp_path / "a.dat").write_bytes(b"thk \xff\xfe 1")
    with pytest.raises(ArtefactError, match=r"a\.dat cannot be read as a text"):
        read_scales(tmp_path / "a.dat")
    with pytest.raises(ArtefactError, match="cannot be read as a text"):
        read_scales(tmp_path)


def test_what_could_not_be_read_is_not_written(tmp_path):
    (tmp_path / "a.dat").write_text("former")
    for scales, words in (
        ({"a b": 1.0}, "field 'a b' cannot be written"),
        ({"": 1.0}, "field '' cannot be written"),
        ({"a": 0.0}, "field 'a': cannot divide by the scale 0.0"),
        ({"a": -1.0}, "field 'a': the scale -1.0 is negative"),
        ({"a": float("nan")}, "field 'a': cannot divide by the scale nan"),
    ):
        with pytest.raises(ArtefactError, match=words):
            write_scales(tmp_path / "a.dat", scales)
    assert (tmp_path / "a.dat").read_text() == "former"
