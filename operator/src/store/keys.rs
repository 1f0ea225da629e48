//! Keys of objects. Pure.
