//! Packed ragged batches: all tokens in one row after another, no padding and no attention mask.

use std::collections::HashMap;
use std::ops::Range;

use crate::config::Config;
use crate::error::{Error, Result};

/// Sequences of token ids laid end to end. Row `i` of every activation belongs to token `i`.
///
/// A batch may hold the ends of longer sequences ([`Batch::ends`]): a pass over it then needs the keys and values of
/// the tokens before ([`Past`](crate::Past)). Or the tokens before are rows of other sequences that begin alike
/// ([`Batch::sharing`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    tokens: Vec<u32>,
    /// Start of each sequence, and the number of rows at the end.
    offsets: Vec<usize>,
    /// Position of each sequence's first row: the number of its tokens that have no rows of their own.
    starts: Vec<usize>,
    /// The rows of those tokens, sequence by sequence; none when they are not in the batch.
    before: Vec<usize>,
}

impl Batch {
    /// Packs sequences in the order given.
    ///
    /// # Errors
    /// When a sequence is empty, longer than the model's context or has a token outside its vocabulary.
    pub fn new<S: AsRef<[u32]>>(config: &Config, sequences: &[S]) -> Result<Self> {
        Batch::ends(config, sequences, &vec![0; sequences.len()])
    }

    /// Packs the tokens of each sequence from position `starts[i]` on.
    ///
    /// # Errors
    /// As [`Batch::new`].
    ///
    /// # Panics
    /// When there are not as many starts as sequences, or a start leaves no token.
    pub fn ends<S: AsRef<[u32]>>(config: &Config, sequences: &[S], starts: &[usize]) -> Result<Self> {
        assert_eq!(sequences.len(), starts.len(), "one start per sequence");
        let mut batch = Batch::empty();
        batch.starts.extend_from_slice(starts);
        for (i, sequence) in sequences.iter().enumerate() {
            let sequence = sequence.as_ref();
            check(config, i, sequence)?;
            assert!(starts[i] < sequence.len(), "sequence {i} has no token from position {} on", starts[i]);
            batch.tokens.extend_from_slice(&sequence[starts[i]..]);
            batch.offsets.push(batch.tokens.len());
        }
        Ok(batch)
    }

    /// Packs sequences so that what is the same is worked out once: a token that comes after the same tokens as in an
    /// earlier sequence has its row there, since nothing after it bears on it.
    ///
    /// # Errors
    /// As [`Batch::new`].
    pub fn sharing<S: AsRef<[u32]>>(config: &Config, sequences: &[S]) -> Result<Self> {
        let mut batch = Batch::empty();
        // The row of a token after the one of a row, or after none.
        let mut next: HashMap<(Option<usize>, u32), usize> = HashMap::new();
        for (i, sequence) in sequences.iter().enumerate() {
            let sequence = sequence.as_ref();
            check(config, i, sequence)?;
            let (mut last, mut start) = (None, 0);
            for &token in sequence {
                let new = batch.tokens.len();
                let row = *next.entry((last, token)).or_insert(new);
                if row == new {
                    batch.tokens.push(token);
                } else {
                    batch.before.push(row);
                    start += 1;
                }
                last = Some(row);
            }
            batch.starts.push(start);
            batch.offsets.push(batch.tokens.len());
        }
        Ok(batch)
    }

    fn empty() -> Self {
        Batch { tokens: Vec::new(), offsets: vec![0], starts: Vec::new(), before: Vec::new() }
    }

    /// Number of rows, over all sequences.
    pub fn n_rows(&self) -> usize {
        self.tokens.len()
    }

    /// Number of sequences.
    pub fn n_sequences(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The token of every row.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Position of each sequence's first row.
    pub fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// Rows in which the tokens before stand, sequence by sequence; none when they are not in the batch.
    pub(crate) fn before(&self) -> &[usize] {
        &self.before
    }

    /// Rows of each sequence, in order: its own, where it shares others.
    pub fn sequences(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.offsets.windows(2).map(|pair| pair[0]..pair[1])
    }

    /// Rows of each sequence's tokens that are in the batch: those it shares, then its own.
    pub fn rows(&self) -> Vec<Vec<usize>> {
        let mut before = self.before.as_slice();
        let rows = |(own, &start): (Range<usize>, &usize)| {
            let (shared, others) = before.split_at(start.min(before.len()));
            before = others;
            shared.iter().copied().chain(own).collect()
        };
        self.sequences().zip(&self.starts).map(rows).collect()
    }

    /// Row of each sequence's last token. They ascend, unless sequences share rows.
    pub fn last_rows(&self) -> Vec<usize> {
        self.rows().iter().map(|rows| *rows.last().expect("no sequence is empty")).collect()
    }
}

/// Whether the model can read a sequence.
fn check(config: &Config, i: usize, sequence: &[u32]) -> Result<()> {
    if sequence.is_empty() {
        return Err(Error::Input(format!("sequence {i} has no tokens; expected at least one")));
    }
    if sequence.len() > config.n_positions {
        return Err(Error::Input(format!(
            "sequence {i} has {} tokens; the model takes at most {}",
            sequence.len(),
            config.n_positions
        )));
    }
    if let Some(token) = sequence.iter().find(|&&token| token as usize >= config.vocab_size) {
        return Err(Error::Input(format!(
            "sequence {i} has token {token}; the model's vocabulary has {}",
            config.vocab_size
        )));
    }
    Ok(())
}

/// The distinct ones of some rows, ascending, and the place of each of the rows among them.
pub fn distinct(rows: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let mut distinct = rows.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let places = rows.iter().map(|row| distinct.partition_point(|own| own < row)).collect();
    (distinct, places)
}

/// Cuts a list of sequences into runs of at most `max_rows` tokens (and at least one sequence). The cuts depend on the
/// lengths alone, so work done run by run and added up in order gives the same bits on any number of threads.
pub fn pieces<S: AsRef<[u32]>>(sequences: &[S], max_rows: usize) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let (mut start, mut rows) = (0, 0);
    for (i, sequence) in sequences.iter().enumerate() {
        let length = sequence.as_ref().len();
        if i > start && rows + length > max_rows {
            pieces.push(start..i);
            (start, rows) = (i, 0);
        }
        rows += length;
    }
    if start < sequences.len() {
        pieces.push(start..sequences.len());
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_everything_in_order() {
        let sequences = [vec![0; 3], vec![0; 3], vec![0; 9], vec![0; 1], vec![0; 2]];
        assert_eq!(pieces(&sequences, 6), [0..2, 2..3, 3..5]);
        assert!(pieces(&sequences[..0], 6).is_empty());
    }

    /// A sequence that goes on after another, one that is the beginning of another, and one that is there twice.
    #[test]
    fn beginnings_are_shared() {
        let config = Config::new(1, 1, 4, 8, 9);
        let sequences = [vec![1, 2, 3], vec![1, 2, 4, 3], vec![2, 3], vec![1, 2], vec![2, 3]];
        let batch = Batch::sharing(&config, &sequences).unwrap();
        assert_eq!(batch.tokens(), [1, 2, 3, 4, 3, 2, 3]);
        assert_eq!(batch.rows(), [vec![0, 1, 2], vec![0, 1, 3, 4], vec![5, 6], vec![0, 1], vec![5, 6]]);
        assert_eq!(batch.starts(), [0, 2, 0, 2, 2]);
        let last = batch.last_rows();
        assert_eq!(last, [2, 4, 6, 1, 6]);
        assert_eq!(distinct(&last), (vec![1, 2, 4, 6], vec![1, 2, 3, 0, 3]));
    }
}
