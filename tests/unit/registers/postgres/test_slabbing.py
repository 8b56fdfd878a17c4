"""Files of every size arrive in slabs as the port asks, however they are cut."""

from hypothesis import given
from hypothesis import strategies as st

from exclave.listing import NO_CONTENT
from exclave.registers.postgres.slabbing import Slabber
from exclave.registers.slabs import SLAB_BYTES, START
from exclave.testing.observing import GuardedPool

_SIZES = st.one_of(
    st.integers(0, 50_000),
    st.sampled_from(
        [0, 8192, 1 << 20, (1 << 20) + 1, SLAB_BYTES - 8192, SLAB_BYTES, SLAB_BYTES + 8192, 5 << 20]
    ),
)


def _told(files, piece):
    """Run the files through; content by ordinal, after checking the port's rules."""
    pool, slabs, ordinals = GuardedPool(1), [], []
    slabber = Slabber(pool)
    found: dict[int, bytearray] = {}
    opened = None

    def take(stream):
        nonlocal opened
        for slab in stream:
            slabs.append(slab)
            assert slab.spans
            for number, (ordinal, start, end) in enumerate(slab.spans):
                assert START <= start < end
                if opened is not None and number == 0:
                    assert ordinal == opened
                    assert len(slab.spans) == 1
                    assert slab.position == len(found[ordinal])
                else:
                    assert ordinal not in found
                found.setdefault(ordinal, bytearray()).extend(slab.memory[start:end])
            if slab.page_bytes:
                assert len(slab.spans) == 1
                assert slab.position % (1 << 20) == 0
                assert slab.path
            opened = slab.spans[-1][0] if slab.more else None
            slab.release()

    for number, (size, page, known) in enumerate(files):
        data = memoryview(bytes([number % 251 + 1]) * size)
        take(slabber.begin(b"path", size if known or page else None, page_bytes=8192 if page and size else 0))
        for at in range(0, size, piece):
            take(slabber.write(data[at : at + piece]))
        ordinals.append(slabber.end())
    take(slabber.flush())
    assert opened is None
    assert pool.out == 0
    return ordinals, found


@given(
    st.lists(st.tuples(_SIZES, st.booleans(), st.booleans()), max_size=12),
    st.sampled_from([4096, 32767, 1 << 22]),
)
def test_content_comes_out_as_it_went_in(files, piece):
    ordinals, found = _told(files, piece)
    for number, ((size, _, _), ordinal) in enumerate(zip(files, ordinals, strict=True)):
        if size == 0:
            assert ordinal == NO_CONTENT
        else:
            assert found[ordinal] == bytes([number % 251 + 1]) * size
    carried = [ordinal for ordinal in ordinals if ordinal != NO_CONTENT]
    assert carried == sorted(set(carried))


def test_small_files_share_a_slab():
    pool = GuardedPool(2)
    slabber = Slabber(pool)
    for _ in range(10):
        assert not list(slabber.begin(b"a", 100))
        assert not list(slabber.write(memoryview(b"x" * 100)))
        slabber.end()
    (slab,) = slabber.flush()
    assert len(slab.spans) == 10
    slab.release()


def test_abandoning_gives_the_slab_back():
    pool = GuardedPool(1)
    slabber = Slabber(pool)
    list(slabber.begin(b"a", 100))
    list(slabber.write(memoryview(b"x" * 50)))
    slabber.abandon()
    slabber.abandon()
    assert pool.out == 0
