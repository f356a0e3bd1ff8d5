//! Clean and corrupted prompts with the answers that a metric compares.

use locus_gpt2::{Config, Error, Result, Tokenizer};

/// A clean and a corrupted prompt, with the answers that a metric compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The prompt on which the model shows the behaviour.
    pub clean: Vec<u32>,
    /// A prompt of as many tokens, without what the behaviour depends on.
    pub corrupted: Vec<u32>,
    /// Correct answers to the clean prompt, one token each.
    pub correct: Vec<u32>,
    /// Incorrect answers, one token each.
    pub incorrect: Vec<u32>,
}

impl Pair {
    /// A pair from text. Prompts and answers are tokenised separately and exactly as given: start an answer with the
    /// space that separates it from the prompt.
    ///
    /// # Errors
    /// When a prompt gives no token or an answer is not exactly one. Whether the pair fits a model is checked by all
    /// functions that take pairs, with [`Pair::check`].
    pub fn from_text<S: AsRef<str>>(
        tokenizer: &Tokenizer,
        clean: &str,
        corrupted: &str,
        correct: &[S],
        incorrect: &[S],
    ) -> Result<Pair> {
        let answers = |field: &str, answers: &[S]| -> Result<Vec<u32>> {
            let one = |answer: &S| {
                let ids = tokenizer.encode_some(field, answer.as_ref())?;
                let why = || format!("{field}: {:?} is {} tokens; expected one", answer.as_ref(), ids.len());
                if let [id] = ids[..] { Ok(id) } else { Err(Error::Input(why())) }
            };
            answers.iter().map(one).collect()
        };
        Ok(Pair {
            clean: tokenizer.encode_some("clean", clean)?,
            corrupted: tokenizer.encode_some("corrupted", corrupted)?,
            correct: answers("correct", correct)?,
            incorrect: answers("incorrect", incorrect)?,
        })
    }

    /// Checks a pair against a model.
    ///
    /// # Errors
    /// When the prompts are empty, too long or of different length, an answer list is empty, the lists share a token,
    /// or a token is outside the vocabulary.
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
        for (field, answers) in [("correct", &self.correct), ("incorrect", &self.incorrect)] {
            if answers.is_empty() {
                return wrong(format!("{field} is empty; expected at least one answer"));
            }
        }
        if let Some(token) = self.correct.iter().find(|token| self.incorrect.contains(token)) {
            return wrong(format!("token {token} is in both correct and incorrect"));
        }
        let all = [&self.clean, &self.corrupted, &self.correct, &self.incorrect];
        if let Some(token) = all.into_iter().flatten().find(|&&token| token as usize >= config.vocab_size) {
            return wrong(format!("token {token} is outside the vocabulary of {}", config.vocab_size));
        }
        Ok(())
    }

    /// Position of the first token that differs; the last position when none does. States before it are the same in
    /// both runs, whatever the model.
    pub fn first_difference(&self) -> usize {
        let differs = self.clean.iter().zip(&self.corrupted).position(|(a, b)| a != b);
        differs.unwrap_or(self.clean.len() - 1)
    }
}

/// Checks that there are pairs, and each of them.
pub(super) fn check_all(pairs: &[Pair], config: &Config) -> Result<()> {
    if pairs.is_empty() {
        return Err(Error::Input("there are no pairs; expected at least one".into()));
    }
    for (i, pair) in pairs.iter().enumerate() {
        pair.check(config).map_err(|error| Error::Input(format!("pair {}: {error}", i + 1)))?;
    }
    Ok(())
}

/// The number of tokens of all prompts of pairs, of which there is at least one.
pub(super) fn one_length(pairs: &[Pair]) -> Result<usize> {
    let length = pairs[0].clean.len();
    match pairs.iter().position(|pair| pair.clean.len() != length) {
        None => Ok(length),
        Some(other) => Err(Error::Input(format!(
            "pair 1 has {length} tokens and pair {} has {}; expected prompts of one length, whose positions can be \
             compared",
            other + 1,
            pairs[other].clean.len()
        ))),
    }
}
