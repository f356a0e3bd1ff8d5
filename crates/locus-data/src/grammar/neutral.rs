//! Everyday sentences that touch none of the tasks: text on which an edit should change nothing.

use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;

use super::stream::{below, pick, weighted};
use super::table::slot;

/// Lines of the held-out neutral text.
const LINES: usize = 150;

/// The most sentences on a line of it.
const LINE_SENTENCES: usize = 3;

const SLOTS: &str = include_str!("neutral.tsv");

/// Weights of the four sentence patterns: weather alone, person, person at a spot, weather and person.
const PATTERNS: [u32; 4] = [1, 3, 3, 3];

#[derive(Clone, Debug)]
struct Lexicon {
    weather: Vec<&'static str>,
    times: Vec<&'static str>,
    persons: Vec<&'static str>,
    actions: Vec<&'static str>,
    spots: Vec<&'static str>,
}

impl Lexicon {
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
        let pattern = weighted(rng, PATTERNS.iter().copied());
        let (weather, time) = (pick(rng, &self.weather), pick(rng, &self.times));
        let (person, action) = (pick(rng, &self.persons), pick(rng, &self.actions));
        match pattern {
            0 => format!("{weather} {time}."),
            1 => format!("{person} {action} {time}."),
            2 => format!("{person} {action} {} {time}.", pick(rng, &self.spots)),
            _ => format!("{weather} and {} {action}.", person.to_ascii_lowercase()),
        }
    }
}

/// Writes neutral sentences that are not in the held-out text.
#[derive(Debug)]
pub(super) struct NeutralWriter {
    lexicon: Lexicon,
    held_out: BTreeSet<String>,
}

impl NeutralWriter {
    /// Draws the held-out text, one document of one to three sentences per line, and the writer that avoids it.
    pub(super) fn new(rng: &mut ChaCha8Rng) -> (String, Self) {
        let mut writer = Self { lexicon: Lexicon::load(), held_out: BTreeSet::new() };
        let mut text = String::new();
        for _ in 0..LINES {
            for sentence in 0..=below(rng, LINE_SENTENCES) {
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

    /// A sentence.
    pub(super) fn plain(&mut self, rng: &mut ChaCha8Rng) -> String {
        loop {
            let text = self.lexicon.sentence(rng);
            if !self.held_out.contains(&text) {
                return text;
            }
        }
    }
}
