import struct

import numpy as np
import pytest
import scipy.io

from pipeline.formats import matlab
from pipeline.formats.matlab import load_arrays

ARRAYS = {
    "ObsMask": np.random.default_rng(0).random((3, 4, 5)) > 0.5,
    "BB": np.array([[-1.5, 2.0, 3.0], [4.0, 5.0, 6.25]]),
    "Res": np.array([[0.2]], dtype=np.float32),
    "small": np.array([[1, 2, 3]], dtype=np.uint8),
    "none": np.zeros((0, 0)),
}


@pytest.mark.parametrize("compressed", [True, False])
def test_arrays_come_back_as_scipy_reads_them(tmp_path, compressed):
    path = tmp_path / "a.mat"
    others = {"text": "words", "cell": np.array([[1, "a"]], dtype=object), "complex": 1j}
    scipy.io.savemat(path, ARRAYS | others, do_compression=compressed)
    found, expected = load_arrays(path), scipy.io.loadmat(path)
    assert found.keys() == ARRAYS.keys()
    for name, array in found.items():
        assert array.dtype == expected[name].dtype
        np.testing.assert_array_equal(array, expected[name])


def test_a_type_that_does_not_exist_is_refused(tmp_path):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"P": np.ones((4, 1)) / 3}, do_compression=False)
    sound = path.read_bytes()
    path.write_bytes(sound.replace(struct.pack("<II", 9, 32), struct.pack("<II", 99, 32)))
    with pytest.raises(ValueError, match="unknown type 99"):  # SciPy crashes here
        load_arrays(path)


def test_damaged_files_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, ARRAYS, do_compression=True)
    sound = path.read_bytes()
    for damaged, told in (
        (sound[:100], "no header"),
        (sound[:200], "cut off"),
        (sound[:140] + b"xxxx" + sound[144:], "unpacked"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=told):
            load_arrays(path)
    path.write_bytes(sound)
    monkeypatch.setattr(matlab, "MOST_BYTES", 50)
    with pytest.raises(ValueError, match="more than"):
        load_arrays(path)
