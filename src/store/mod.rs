//! The only room that knows redb.

pub mod options;

pub use options::Options;
