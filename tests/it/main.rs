//! The one integration binary: everything that needs more than one module, or the outside.

// Helpers of tests are test code too, which clippy cannot see outside `#[test]` functions.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod boringtun;
mod fuzz;
mod host;
mod maker;
mod manifests;
mod sim;
mod tidy;
mod wg;
mod words;
