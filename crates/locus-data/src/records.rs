//! Files in which some records cannot be used.

use crate::{DataError, Result};

/// The records of a file: those that can be used and those that cannot.
#[derive(Debug)]
pub struct Records<T> {
    /// What was read, each with the number of its record in the file, from 0, in the order of the file.
    pub usable: Vec<(usize, T)>,
    /// What could not be read, in the order of the file.
    pub skipped: Vec<Skipped>,
    /// Number of further questions that usable records hold and that are not read, because they have answers of their
    /// own: about portability and locality, over several hops, prompts to generate from.
    pub unread: usize,
}

/// A record that cannot be used.
#[derive(Debug)]
pub struct Skipped {
    /// Number of the record in the file, from 0.
    pub record: usize,
    /// The number that the record gives itself; `None` when it has none.
    pub case_id: Option<u64>,
    /// What is wrong with the record.
    pub reason: DataError,
    /// Whether the layout provides for such records: a zsRE record of which no counterfactual could be made.
    pub foreseen: bool,
}

impl<T> Records<T> {
    pub(crate) fn new() -> Self {
        Records { usable: Vec::new(), skipped: Vec::new(), unread: 0 }
    }

    /// Every record, of which all must be usable; those whose gaps are foreseen are left out.
    ///
    /// # Errors
    /// The reason of the first record that cannot be used.
    pub fn all(self) -> Result<Vec<T>> {
        match self.skipped.into_iter().find(|skipped| !skipped.foreseen) {
            Some(skipped) => Err(skipped.reason),
            None => Ok(self.usable.into_iter().map(|(_, value)| value).collect()),
        }
    }
}
