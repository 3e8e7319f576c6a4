"""Random shapes of every kind."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from core.schema.class_shapes import KINDS, Class, fields_of
from core.schema.collection_shapes import Items, Map, OneOf, Tuple, sets
from core.schema.scalar_shapes import Bytes, bounds, choices, flags, keys, numbers, plains, texts
from core.schema.shapes import Shape


def _containers(children: SearchStrategy[Shape]) -> SearchStrategy[Shape]:
    return st.one_of(
        st.builds(Items, st.just(list), children, bounds),
        sets,
        st.builds(Tuple, st.lists(children, min_size=1, max_size=2).map(tuple)),
        st.builds(Map, keys, children),
        st.builds(OneOf, st.lists(children, min_size=1, max_size=3).map(tuple)),
        st.builds(Class, st.sampled_from(KINDS), fields_of(children)),
    )


_simple = st.one_of(plains, numbers, texts, st.builds(Bytes, bounds), choices, flags)

all_shapes: SearchStrategy[Shape] = st.recursive(_simple, _containers, max_leaves=4)
