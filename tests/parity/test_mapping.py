"""Weight maps: layouts, names, and refusals; with a golden that is made by hand, so that no torch
is needed.
"""

import numpy as np
import pytest

from jaxgrad.parity import Golden, WeightMap, layouts, map_weights


def golden(**state):
    """What torch would leave of a module with these parameters."""
    arrays = {f"state/{k.replace('_', '.')}": np.asarray(v, np.float32) for k, v in state.items()}
    names = [k.removeprefix("state/") for k in arrays]
    return Golden(
        {"name": "m", "aliases": {}, "parameters": names, "order": [], "modules": {}}, arrays
    )


def test_layouts_are_proposed_by_shape_and_applied():
    x = np.arange(24.0).reshape(4, 6)
    assert list(layouts.candidates((4, 6), (6, 4))) == ["axes 1 0"]
    assert list(layouts.candidates((8, 3, 5, 5), (5, 5, 3, 8))) == ["axes 2 3 1 0"]
    assert list(layouts.candidates((4,), (4, 1, 1))) == ["shape 4 1 1"]
    assert "axes 1 0, shape 6 2 2" in list(layouts.candidates((4, 6), (6, 2, 2)))
    np.testing.assert_array_equal(layouts.apply("rows 2/2, axes 1 0", x), x[2:].T)
    assert layouts.apply("rows 1/2, shape 2 3 2", x).shape == (2, 3, 2)
    with pytest.raises(ValueError, match="'upside down' is no layout"):
        layouts.apply("upside down", x)


def test_names_and_shapes_decide_where_they_can():
    state = golden(
        enc_fc1_weight=np.ones((5, 4)),
        enc_fc1_bias=np.ones(5),
        enc_norm_weight=np.ones(5),
        enc_norm_bias=np.ones(5),
    )
    tree = {
        "enc": {
            "dense1": {"kernel": np.zeros((4, 5)), "bias": np.zeros(5)},
            "norm": {"scale": np.zeros(5), "bias": np.zeros(5)},
        }
    }
    found = map_weights(tree, state, lambda *_: pytest.fail("there is nothing to try"))
    assert found.entries["['enc']['dense1']['kernel']"] == ("enc.fc1.weight", "axes 1 0")
    assert found.entries["['enc']['norm']['bias']"] == ("enc.norm.bias", "same")


def test_the_same_words_decide_whatever_the_order():
    state = golden(
        encode_fc_bias=np.ones(5),
        encode_norm_bias=np.ones(5),
        decode_fc_bias=np.ones(5),
        decode_norm_bias=np.ones(5),
    )
    tree = {
        "params": {
            half: {n: {"bias": np.zeros(5)} for n in ("fc", "norm")}
            for half in ("decode", "encode")
        }
    }
    found = map_weights(tree, state, lambda *_: pytest.fail("there is nothing to try"))
    assert found.entries == {
        f"['params']['{half}']['{n}']['bias']": (f"{half}.{n}.bias", "same")
        for half in ("decode", "encode")
        for n in ("fc", "norm")
    }


def test_what_has_no_partner_is_named():
    with pytest.raises(ValueError, match=r"no parameter of torch fits \['w'\], of shape \[3, 3\]"):
        map_weights({"w": np.zeros((3, 3))}, golden(weight=np.ones((2, 2))), None)
    with pytest.raises(ValueError, match=r"torch's bias has no partner"):
        map_weights({"w": np.zeros((3, 2))}, golden(weight=np.ones((2, 3)), bias=np.ones(2)), None)


def test_a_map_is_saved_and_read_again(tmp_path):
    tree = {"w": np.zeros((3, 2))}
    found = map_weights(tree, golden(weight=np.ones((2, 3))), None)
    path = found.save(tmp_path / "map.json")
    assert WeightMap.load(path, tree).entries == found.entries
    assert str(found) == "['w'] is weight (axes 1 0)"
    with pytest.raises(ValueError, match="which the tree has not"):
        WeightMap.load(path, {"v": np.zeros((3, 2))})
    path.write_text("[]")
    with pytest.raises(ValueError, match="is no weight map"):
        WeightMap.load(path, tree)
