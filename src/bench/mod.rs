//! Measuring: what a tunnel does on this machine, and beside what others use.
//!
//! It must not change what it measures: it drives running programs from outside, over sockets. It
//! prints nothing and decides nothing about words; `cli` shows what it returns.

pub mod compare;
pub mod crypto;
pub mod error;
pub mod gateway;
pub mod html;
pub mod implementation;
pub mod latencies;
pub mod link;
pub mod load;
pub mod machine;
pub mod measure;
pub mod metric;
pub mod path;
pub mod plan;
pub mod random;
pub mod report;
pub mod run;
pub mod settings;
pub mod stats;
pub mod table;
pub mod topology;
pub mod worker;
