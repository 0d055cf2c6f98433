"""Shards are whole batches, and together the whole set."""

from hypothesis import given
from hypothesis import strategies as st

from cnnx.pipeline.fleet.shards.cuts import Shard, shards_of, whole_batches


@given(st.integers(1, 3000), st.integers(1, 4000), st.integers(1, 64))
def test_every_image_is_in_the_batch_that_one_node_would_run_it_in(images, size, batch):
    shards = shards_of(images, size, batch=batch)
    bounds = [0, *(shard.stop for shard in shards)]
    assert bounds == [*(shard.start for shard in shards), images], "in order, and nothing is missing"
    assert sum(map(len, shards)) == images and all(map(len, shards))
    assert all(shard.start % batch == 0 for shard in shards)
    assert max(map(len, shards)) <= whole_batches(size, batch) < size + batch


def test_names_count_from_one():
    assert str(Shard(0, 4096)) == "images 1 to 4,096" and whole_batches(9, 8) == 16
