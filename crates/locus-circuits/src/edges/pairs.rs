//! Clean and corrupted prompts with the answers that a metric compares.

use locus_gpt2::{Config, Error, Result};

/// One clean/corrupted pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The prompt on which the model shows the behaviour.
    pub clean: Vec<u32>,
    /// The same number of tokens without what the behaviour depends on.
    pub corrupted: Vec<u32>,
    /// Right answers to the clean prompt, one token each.
    pub good: Vec<u32>,
    /// Wrong ones.
    pub bad: Vec<u32>,
}

impl Pair {
    /// Checks a pair against a model.
    ///
    /// # Errors
    /// When the prompts are empty, too long or of different length, an answer list is empty, the lists share a token, or
    /// a token is outside the vocabulary.
    pub fn check(&self, config: &Config) -> Result<()> {
        let wrong = |why: String| Err(Error::Input(why));
        if self.clean.len() != self.corrupted.len() {
            return wrong(format!(
                "clean has {} tokens and corrupted {}; expected equal numbers",
                self.clean.len(),
                self.corrupted.len()
            ));
        }
        if self.clean.is_empty() || self.clean.len() > config.n_positions {
            return wrong(format!(
                "clean has {} tokens; expected 1 to {}",
                self.clean.len(),
                config.n_positions
            ));
        }
        for (field, answers) in [("good", &self.good), ("bad", &self.bad)] {
            if answers.is_empty() {
                return wrong(format!("{field} is empty; expected at least one answer"));
            }
        }
        if let Some(token) = self.good.iter().find(|token| self.bad.contains(token)) {
            return wrong(format!("token {token} is in both good and bad"));
        }
        let all = [&self.clean, &self.corrupted, &self.good, &self.bad];
        if let Some(token) = all.into_iter().flatten().find(|&&token| token as usize >= config.vocab_size) {
            return wrong(format!("token {token} is outside the vocabulary of {}", config.vocab_size));
        }
        Ok(())
    }

    /// Position of the first token that differs; the last position when none does. What comes before is the same in
    /// both runs, whatever the model.
    pub fn first_difference(&self) -> usize {
        let differs = self.clean.iter().zip(&self.corrupted).position(|(a, b)| a != b);
        differs.unwrap_or(self.clean.len() - 1)
    }
}
