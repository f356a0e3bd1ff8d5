//! Everyday sentences that have nothing to do with the tasks: text on which an edit should change nothing.

use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;

use super::draws::{below, pick, weighted};
use super::words::slot;

/// Number of lines of the held-out text.
const LINES: usize = 150;

/// Largest number of sentences on a line of the held-out text.
const LINE_SENTENCES: usize = 3;

const SLOTS: &str = include_str!("neutral.tsv");

/// Weights of the four sentence patterns: weather alone, person, person at a spot, weather and person.
const PATTERNS: [u32; 4] = [1, 3, 3, 3];

/// Word lists of the everyday sentences.
#[derive(Clone, Debug)]
struct EverydayWords {
    weather: Vec<&'static str>,
    times: Vec<&'static str>,
    persons: Vec<&'static str>,
    actions: Vec<&'static str>,
    spots: Vec<&'static str>,
}

impl EverydayWords {
    fn load() -> Self {
        Self {
            weather: slot(SLOTS, "weather"),
            times: slot(SLOTS, "time"),
            persons: slot(SLOTS, "person"),
            actions: slot(SLOTS, "action"),
            spots: slot(SLOTS, "spot"),
        }
    }

    fn sentence(&self, rng: &mut ChaCha8Rng) -> String {
        let pattern = weighted(PATTERNS.iter().copied(), rng);
        let (weather, time) = (pick(&self.weather, rng), pick(&self.times, rng));
        let (person, action) = (pick(&self.persons, rng), pick(&self.actions, rng));
        match pattern {
            0 => format!("{weather} {time}."),
            1 => format!("{person} {action} {time}."),
            2 => format!("{person} {action} {} {time}.", pick(&self.spots, rng)),
            _ => format!("{weather} and {} {action}.", person.to_ascii_lowercase()),
        }
    }
}

/// Writer of everyday sentences that are not in the held-out text.
#[derive(Debug)]
pub(super) struct NeutralWriter {
    words: EverydayWords,
    held_out: BTreeSet<String>,
}

impl NeutralWriter {
    /// Held-out text, a document of one to three sentences on each line, and the writer that avoids it.
    pub(super) fn new(rng: &mut ChaCha8Rng) -> (String, Self) {
        let mut writer = Self { words: EverydayWords::load(), held_out: BTreeSet::new() };
        let mut text = String::new();
        for _ in 0..LINES {
            for sentence in 0..=below(LINE_SENTENCES, rng) {
                if sentence > 0 {
                    text.push(' ');
                }
                let new = writer.plain(rng);
                text.push_str(&new);
                writer.held_out.insert(new);
            }
            text.push('\n');
        }
        (text, writer)
    }

    /// Sentence that is not held out.
    pub(super) fn plain(&mut self, rng: &mut ChaCha8Rng) -> String {
        loop {
            let text = self.words.sentence(rng);
            if !self.held_out.contains(&text) {
                return text;
            }
        }
    }
}
