"""Where batches of pixels come from."""

import numpy as np

from pipeline.porf.observations import object_boxes


def test_boxes_are_cut_down_to_the_masks_with_room_around() -> None:
    masks = np.zeros((3, 120, 160), bool)
    masks[0, 40:60, 50:150] = True  # reaches to ten pixels from the box's right side
    masks[1, 0:5, 0:5] = True  # beside the box
    box = np.array([[20, 10, 140, 100]] * 3)
    cut = object_boxes(box, masks)
    assert cut[0].tolist() == [40, 32, 120, 36]  # a tenth of the width, or 8 pixels at least
    assert cut[1].tolist() == cut[2].tolist() == box[2].tolist()
