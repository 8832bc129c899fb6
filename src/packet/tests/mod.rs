//! What the tests of cutting and merging share, and what holds of both together.

pub mod sample;
