//! Files read and written: regular ones in, whole ones out, one run at a time, and SHA-256 in lowercase hexadecimal.

#![doc = include_str!("../README.md")]

mod hash;
mod lock;
mod read;
mod write;

pub use hash::{hex, sha256, sha256_file, sha256_reader};
pub use lock::OutputLock;
pub use read::{open, read, read_to_string};
pub use write::{
    NewFile, check_writable, discard_unfinished, is_output, output_error, put_in_place, remove_abandoned,
    write_atomically, write_folder,
};
