//! Data files as they are distributed, their readers and writers, and downloads.

mod fetch;
mod fetch_hostile;
mod manifest;
mod organism;
mod real_data;
mod round_trip;
