//! Tasks that `locus` writes itself, in the tokens of the model at hand: prompts with a corrupted version of equal
//! length, and answers of one token.
//!
//! | task | clean prompt | corrupted prompt | correct, incorrect answers |
//! |---|---|---|---|
//! | `hierarchy` | A rose is a kind of | another subject | the subject's category; the other subject's |
//! | `agreement` | Julia named that | the demonstrative in the other number | the noun in the number of the demonstrative; in the other |
//! | `ioi` | Then, Anna and Paul went to the park. Paul gave a book to | a third name in place of the repeated one | the name that is not repeated; the repeated one |
//! | `greater-than` | The war lasted from the year 1732 to the year 17 | the year 1701 | two-digit numbers above; all others |
//!
//! The first two take their words from the grammar of the organism, whose facts and sentences are English. Sources:
//! Wang et al. 2022 (arXiv 2211.00593, section 2; corrupted as in Hanna et al. 2024, arXiv 2403.17806) for `ioi`, Hanna
//! et al. 2023 (arXiv 2305.00586, section 2) for `greater-than`.

use std::str::FromStr;

use anyhow::Result;
use locus_circuits::edges::{Pair, StandardMetric};
use locus_data::grammar;
use locus_data::seed::{below, shuffle, stream};
use locus_gpt2::{Error, Tokenizer};

use crate::discovery::{PAIR_TASKS, agreement_pairs, hierarchy_pairs};
use crate::organism::Recipe;

/// A task whose pairs `locus` writes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptTask {
    /// What is a rose a kind of?
    Hierarchy,
    /// A noun in the number of its demonstrative.
    Agreement,
    /// Indirect object identification.
    Ioi,
    /// A year that is later than another one.
    GreaterThan,
}

impl PromptTask {
    /// All four.
    pub const ALL: [PromptTask; 4] =
        [PromptTask::Hierarchy, PromptTask::Agreement, PromptTask::Ioi, PromptTask::GreaterThan];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            PromptTask::Hierarchy => "hierarchy",
            PromptTask::Agreement => "agreement",
            PromptTask::Ioi => "ioi",
            PromptTask::GreaterThan => "greater-than",
        }
    }

    /// The metric that the field uses for the task.
    pub fn metric(self) -> StandardMetric {
        match self {
            PromptTask::GreaterThan => StandardMetric::ProbDiff,
            _ => StandardMetric::LogitDiff,
        }
    }

    /// At most `most` pairs, without repetition: both prompts of a pair have equally many tokens and differ, and every
    /// answer is one token. Equal tokenizers and seeds give equal pairs; the first of many are the few.
    ///
    /// # Errors
    /// When the tokenizer has no single tokens for the answers.
    pub fn pairs(self, tokenizer: &Tokenizer, most: usize, seed: u64) -> Result<Vec<Pair>> {
        let mut pairs = match self {
            PromptTask::Hierarchy => hierarchy(tokenizer)?,
            PromptTask::Agreement => agreement(tokenizer)?,
            PromptTask::Ioi => indirect_objects(tokenizer)?,
            PromptTask::GreaterThan => years(tokenizer)?,
        };
        if pairs.is_empty() {
            let answers = match self {
                PromptTask::Hierarchy => "categories (\" flower\")",
                PromptTask::Agreement => "nouns in both numbers (\" book\", \" books\")",
                PromptTask::Ioi => "at least three names (\" Anna\")",
                PromptTask::GreaterThan => "the two-digit numbers (\"00\" to \"99\")",
            };
            let why = format!(
                "task {}: no pair can be made: the tokenizer has no single tokens for {answers}; expected a task whose \
                 answers are tokens of the model",
                self.name()
            );
            return Err(Error::Input(why).into());
        }
        shuffle(&mut pairs, &mut stream(seed, &format!("prompts/{}", self.name()), 0));
        pairs.truncate(most);
        Ok(pairs)
    }
}

impl FromStr for PromptTask {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let found = PromptTask::ALL.into_iter().find(|task| task.name() == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = PromptTask::ALL.into_iter().map(PromptTask::name).collect();
            Error::Input(format!("task {name:?} is unknown; expected {}", names.join(", ")))
        })
    }
}

/// The token of a text that is a single one.
fn single(tokenizer: &Tokenizer, text: &str) -> Result<Option<u32>> {
    let tokens = tokenizer.encode(text)?;
    Ok(if let [token] = tokens[..] { Some(token) } else { None })
}

/// Facts of the organism's world, corrupted by other subjects of equal length.
fn hierarchy(tokenizer: &Tokenizer) -> Result<Vec<Pair>> {
    let mut requests = grammar::generate(Recipe::default().seed, 0).requests;
    let mut of_one_token = Vec::new();
    for request in &requests {
        let target = request.target_true.as_deref().unwrap_or_default();
        of_one_token.push(single(tokenizer, &format!(" {target}"))?.is_some());
    }
    let mut keep = of_one_token.into_iter();
    requests.retain(|_| keep.next().unwrap_or(false));
    hierarchy_pairs(tokenizer, &requests, usize::MAX)
}

/// Sentences of the organism's agreement tasks, up to the noun.
fn agreement(tokenizer: &Tokenizer) -> Result<Vec<Pair>> {
    let tasks = grammar::generate(Recipe::default().seed, 0).tasks;
    let mut pairs: Vec<Pair> = Vec::new();
    for task in
        tasks.iter().filter(|task| PAIR_TASKS.contains(&task.name.as_str()) && task.name != PAIR_TASKS[0])
    {
        let mut rows = Vec::new();
        for row in &task.rows {
            let noun = row.text.trim_end_matches('.').rsplit(' ').next().unwrap_or_default();
            if single(tokenizer, &format!(" {noun}"))?.is_some() {
                rows.push(row.clone());
            }
        }
        pairs.extend(agreement_pairs(tokenizer, &rows, usize::MAX)?);
    }
    let mut seen = std::collections::BTreeSet::new();
    pairs.retain(|pair| seen.insert((pair.clean.clone(), pair.correct.clone())));
    Ok(pairs)
}

const NAMES: &str = "Anna Paul Tom Diana Grace Susan Martin Nina Lucas Felix Jack Laura Helen Walter Peter Linda Rosa \
                     Kevin Frank Daniel Henry Ruth Karen Clara Ella Oscar Sam Leo Carl Vera Julia Simon Noah Alan \
                     Sarah Mary Irene John Mark James David Robert Michael Thomas Kate Alice Emma George Richard \
                     Edward Charles Adam Jane Steven Brian Lisa Maria Patrick Alex Rachel Amy Eric Andrew Scott";
const PLACES: [&str; 8] = ["park", "station", "market", "house", "school", "garden", "office", "river"];
const OBJECTS: [&str; 8] = ["book", "ring", "letter", "drink", "ticket", "basket", "picture", "bone"];
/// Number of sentences made before repetitions and the cut.
const IOI_DRAWS: usize = 2_000;

/// Two names, one of which gives something to the other.
fn indirect_objects(tokenizer: &Tokenizer) -> Result<Vec<Pair>> {
    let mut names = Vec::new();
    for name in NAMES.split_whitespace() {
        if single(tokenizer, &format!(" {name}"))?.is_some() {
            names.push(name);
        }
    }
    if names.len() < 3 {
        return Ok(Vec::new());
    }
    // Sentences are drawn from one seed; that of the caller chooses among them.
    let rng = &mut stream(0, "prompts/ioi sentences", 0);
    let mut pairs = Vec::with_capacity(IOI_DRAWS);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..IOI_DRAWS {
        let mut drawn = Vec::with_capacity(3);
        while drawn.len() < 3 {
            let name = names[below(names.len(), rng)];
            if !drawn.contains(&name) {
                drawn.push(name);
            }
        }
        let [subject, object, third] = drawn[..] else { unreachable!("three names were drawn") };
        let (place, thing) = (PLACES[below(PLACES.len(), rng)], OBJECTS[below(OBJECTS.len(), rng)]);
        let (first, second) = if below(2, rng) == 0 { (subject, object) } else { (object, subject) };
        let sentence = |giver: &str| {
            format!("Then, {first} and {second} went to the {place}. {giver} gave a {thing} to")
        };
        if !seen.insert(sentence(subject)) {
            continue;
        }
        let [correct, incorrect] = [object, subject].map(|name| [format!(" {name}")]);
        let pair = Pair::from_text(tokenizer, &sentence(subject), &sentence(third), &correct, &incorrect)?;
        if pair.clean.len() == pair.corrupted.len() {
            pairs.push(pair);
        }
    }
    Ok(pairs)
}

const SPANS: [&str; 16] = [
    "war",
    "plan",
    "trip",
    "reign",
    "trial",
    "siege",
    "strike",
    "project",
    "journey",
    "campaign",
    "famine",
    "voyage",
    "contract",
    "marriage",
    "dynasty",
    "rebellion",
];

/// Spans of years: the second year is later than the first.
fn years(tokenizer: &Tokenizer) -> Result<Vec<Pair>> {
    let mut numbers = Vec::with_capacity(100);
    for number in 0..100 {
        let text = format!("{number:02}");
        let Some(token) = single(tokenizer, &text)? else { return Ok(Vec::new()) };
        numbers.push(token);
    }
    let mut pairs = Vec::new();
    for span in SPANS {
        for century in 11..=17 {
            for year in 2..=98usize {
                let sentence = |year: usize| {
                    format!("The {span} lasted from the year {century}{year:02} to the year {century}")
                };
                let (clean, corrupted) =
                    (tokenizer.encode(&sentence(year))?, tokenizer.encode(&sentence(1))?);
                // The year must be a century and a number, as the answer is: 1732 is one token of some tokenizers.
                let differ: Vec<usize> =
                    (0..clean.len().min(corrupted.len())).filter(|&i| clean[i] != corrupted[i]).collect();
                let apart = clean.len() == corrupted.len()
                    && matches!(differ[..], [at] if (clean[at], corrupted[at]) == (numbers[year], numbers[1]));
                if apart {
                    let (incorrect, correct) = numbers.split_at(year + 1);
                    let (correct, incorrect) = (correct.to_vec(), incorrect.to_vec());
                    pairs.push(Pair { clean, corrupted, correct, incorrect });
                }
            }
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use locus_gpt2::Config;

    fn tokenizer() -> Tokenizer {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/organism");
        Tokenizer::read(&folder).unwrap()
    }

    #[test]
    fn pairs_fit_the_tokenizer() {
        let tokenizer = tokenizer();
        let config = Config::new(1, 1, 4, 128, tokenizer.vocab_size());
        for task in [PromptTask::Hierarchy, PromptTask::Agreement, PromptTask::Ioi] {
            let pairs = task.pairs(&tokenizer, 60, 1).unwrap();
            assert_eq!(pairs.len(), 60, "{}", task.name());
            for pair in &pairs {
                pair.check(&config).unwrap();
                assert_ne!(pair.clean, pair.corrupted);
            }
            assert_eq!(task.pairs(&tokenizer, 10, 1).unwrap(), pairs[..10], "the first of many are the few");
            assert_ne!(task.pairs(&tokenizer, 60, 2).unwrap(), pairs);
            assert_eq!(task.name().parse::<PromptTask>().unwrap(), task);
        }
    }

    #[test]
    fn prompts_read_as_the_table_says() {
        let tokenizer = tokenizer();
        let text = |ids: &[u32]| tokenizer.decode(ids).unwrap();
        let ioi = &PromptTask::Ioi.pairs(&tokenizer, 1, 1).unwrap()[0];
        let (clean, corrupted) = (text(&ioi.clean), text(&ioi.corrupted));
        let [correct, incorrect] =
            [&ioi.correct, &ioi.incorrect].map(|answer| text(answer).trim().to_owned());
        assert_eq!(clean.matches(&correct).count(), 1, "{clean}");
        assert_eq!(
            (clean.matches(&incorrect).count(), corrupted.matches(&incorrect).count()),
            (2, 1),
            "{clean}"
        );
        let agreement = &PromptTask::Agreement.pairs(&tokenizer, 1, 1).unwrap()[0];
        let plural = |prompt: &str| prompt.contains(" these") || prompt.contains(" those");
        assert_ne!(plural(&text(&agreement.clean)), plural(&text(&agreement.corrupted)));
    }

    /// The organism's tokenizer spells numbers digit by digit.
    #[test]
    fn a_task_without_tokens_is_refused() {
        let why = PromptTask::GreaterThan.pairs(&tokenizer(), 9, 1).unwrap_err().to_string();
        assert!(
            why.contains("no single tokens for the two-digit numbers") && why.lines().count() == 1,
            "{why}"
        );
        assert!(
            "sva"
                .parse::<PromptTask>()
                .unwrap_err()
                .to_string()
                .contains("hierarchy, agreement, ioi, greater-than")
        );
    }
}
