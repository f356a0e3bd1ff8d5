//! Files written whole or not at all, and SHA-256 in lowercase hexadecimal.

#![doc = include_str!("../README.md")]

mod hash;
mod write;

pub use hash::{hex, sha256, sha256_file, sha256_reader};
pub use write::{new_file_beside, write_atomically};
