//! Packed ragged batches: all tokens in one row after another, no padding and no attention mask.

use std::ops::Range;

use crate::config::Config;
use crate::error::{Error, Result};

/// Sequences of token ids laid end to end. Row `i` of every activation belongs to token `i`.
///
/// A batch may hold the ends of longer sequences ([`Batch::ends`]): a pass over it then needs the keys and values of
/// the tokens before ([`Past`](crate::Past)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    tokens: Vec<u32>,
    /// Start of each sequence, and the number of rows at the end.
    offsets: Vec<usize>,
    /// Position of each sequence's first row: the number of its tokens that are not in the batch.
    starts: Vec<usize>,
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
        let mut batch = Batch { tokens: Vec::new(), offsets: vec![0], starts: starts.to_vec() };
        for (i, sequence) in sequences.iter().enumerate() {
            let sequence = sequence.as_ref();
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
            assert!(starts[i] < sequence.len(), "sequence {i} has no token from position {} on", starts[i]);
            batch.tokens.extend_from_slice(&sequence[starts[i]..]);
            batch.offsets.push(batch.tokens.len());
        }
        Ok(batch)
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

    /// Rows of each sequence, in order.
    pub fn sequences(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.offsets.windows(2).map(|pair| pair[0]..pair[1])
    }

    /// Row of each sequence's last token.
    pub fn last_rows(&self) -> Vec<usize> {
        self.offsets[1..].iter().map(|end| end - 1).collect()
    }
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
}
