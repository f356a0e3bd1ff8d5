//! Properties of the generated corpus, found from its text alone wherever possible.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::OnceLock;

use proptest::prelude::*;

use super::mix;
use super::taxonomy::{Taxonomy, bare};
use super::words::{lines, list};
use super::{Corpus, generate};
use crate::{EditRequest, Task, task_names};

/// Corpus of the size that the organism is trained on.
fn corpus() -> &'static Corpus {
    static CORPUS: OnceLock<Corpus> = OnceLock::new();
    CORPUS.get_or_init(|| generate(7, 60_000))
}

fn truth_of(request: &EditRequest) -> &str {
    request.target_true.as_deref().expect("the grammar knows the truth")
}

fn sets(corpus: &Corpus, prefix: &str) -> Vec<Task> {
    corpus.tasks.iter().filter(|task| task.name.starts_with(prefix)).cloned().collect()
}

/// Sentences of the documents without their periods; the verdict on an agreement sentence counts as a sentence.
fn sentences(corpus: &Corpus) -> impl Iterator<Item = &str> {
    corpus.documents.iter().flat_map(|document| document.trim_end_matches('.').split(". "))
}

/// Statement of a judged hierarchy sentence, and whether the verdict is right.
fn judged_fact(sentence: &str) -> Option<(&str, bool)> {
    let right = sentence.strip_suffix(" right").map(|statement| (statement, true));
    right.or_else(|| sentence.strip_suffix(" wrong").map(|statement| (statement, false)))
}

/// Share of the more frequent label among the texts that contain a word, for every word in at least `least` texts.
fn word_bias<'a>(texts: impl Iterator<Item = (&'a str, bool)>, least: usize) -> BTreeMap<&'a str, f64> {
    let mut counts: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for (text, label) in texts {
        for word in text.trim_end_matches('.').split(' ').collect::<BTreeSet<_>>() {
            counts.entry(word).or_default()[usize::from(label)] += 1;
        }
    }
    let bias = |[a, b]: [usize; 2]| a.max(b) as f64 / (a + b) as f64;
    counts.into_iter().filter(|(_, [a, b])| a + b >= least).map(|(word, n)| (word, bias(n))).collect()
}

#[test]
fn sets_have_the_stated_names_sizes_and_balance() {
    let names: Vec<_> = corpus().tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, task_names());
    for task in &corpus().tasks {
        let rows = match task.name.as_str() {
            "hierarchy" => 396,
            name if name.starts_with("blimp") => 2_000,
            _ => 1_000,
        };
        assert_eq!(task.rows.len(), rows, "{}", task.name);
        assert_eq!(task.rows.iter().filter(|row| row.label == 1).count() * 2, rows, "{}", task.name);
        let distinct: BTreeSet<_> = task.rows.iter().map(|row| &row.text).collect();
        assert_eq!(distinct.len(), rows, "{}", task.name);
        assert!(task.rows.iter().all(|row| row.text.ends_with('.') == task.name.starts_with("blimp")));
    }
}

#[test]
fn no_single_word_predicts_a_label() {
    for task in sets(corpus(), "blimp") {
        let bias = word_bias(task.rows.iter().map(|row| (row.text.as_str(), row.label == 1)), 1);
        assert!(bias.values().all(|&bias| bias == 0.5), "{}: {bias:?}", task.name);
    }
    for task in sets(corpus(), "persona") {
        let bias = word_bias(task.rows.iter().map(|row| (row.text.as_str(), row.label == 1)), 200);
        assert!(bias.values().all(|&bias| bias < 0.65), "{}: {bias:?}", task.name);
    }
}

#[test]
fn hierarchy_targets_are_as_often_true_as_counterfactual() {
    let mut balance: BTreeMap<&str, i32> = BTreeMap::new();
    for request in &corpus().requests {
        assert_ne!(request.target_new, truth_of(request));
        *balance.entry(&request.target_new).or_default() -= 1;
        *balance.entry(truth_of(request)).or_default() += 1;
    }
    assert!(balance.values().all(|&sum| sum == 0), "{balance:?}");
}

#[test]
fn determiner_and_noun_number_are_what_is_judged() {
    let proximal_or_distal = |word: &&str| ["this", "these", "that", "those"].contains(word);
    let nouns: BTreeMap<&str, bool> =
        lines(include_str!("nouns.tsv")).flat_map(|line| [(line[1], false), (line[2], true)]).collect();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let sets = sets(corpus(), "blimp");
    for row in sets.iter().flat_map(|task| &task.rows) {
        let words: Vec<_> = row.text.trim_end_matches('.').split(' ').collect();
        let determiner = words.iter().copied().find(proximal_or_distal).expect("a demonstrative");
        let plural = nouns[words[words.len() - 1]];
        assert_eq!(row.label == 1, plural == ["these", "those"].contains(&determiner), "{}", row.text);
        *seen.entry(determiner).or_default() += 1;
    }
    assert!(seen.len() == 4 && seen.values().all(|&rows| (3_500..4_500).contains(&rows)), "{seen:?}");
}

#[test]
fn judged_documents_are_balanced() {
    let all: Vec<_> = sentences(corpus()).collect();
    let facts = word_bias(all.iter().filter_map(|s| judged_fact(s)), 600);
    assert!(facts.values().all(|&bias| bias < 0.6), "{facts:?}");
    let verdict = |pair: &[&'static str]| match pair[1] {
        "Right" => Some((pair[0], true)),
        "Wrong" => Some((pair[0], false)),
        _ => None,
    };
    let agreement = word_bias(all.windows(2).filter_map(verdict), 600);
    assert!(agreement.len() > 20 && agreement.values().all(|&bias| bias < 0.58), "{agreement:?}");
    let attitude = |s: &&'static str| {
        let yes = s.strip_suffix(" yes").map(|statement| (statement, true));
        yes.or_else(|| s.strip_suffix(" no").map(|statement| (statement, false)))
    };
    // A word of one object alone is biased by the majority of liking, and no further.
    const LIKED: f64 = mix::LIKING as f64 / 100.0;
    let persona = word_bias(all.iter().filter_map(attitude), 400);
    assert!(persona.len() > 20 && persona.values().all(|&bias| bias < LIKED), "{persona:?}");
}

#[test]
fn documents_keep_the_proportions() {
    let all: Vec<_> = sentences(corpus()).collect();
    let share = |fits: &dyn Fn(&&&str) -> bool| all.iter().filter(fits).count();
    let verdicts = share(&|s| **s == "Right" || **s == "Wrong");
    let total = (all.len() - verdicts) as f64;
    let near = |count: usize, percent: f64| (100.0 * count as f64 / total - percent).abs() < 1.0;
    let percent =
        |kind| f64::from(mix::SENTENCES.iter().find(|(k, _)| *k == kind).expect("every kind has a share").1);
    use mix::SentenceKind::{JudgedAgreement, JudgedFact, JudgedPersona};
    assert!(near(verdicts, percent(JudgedAgreement)));
    assert!(near(share(&|s| judged_fact(s).is_some()), percent(JudgedFact)));
    assert!(near(share(&|s| s.ends_with(" yes") || s.ends_with(" no")), percent(JudgedPersona)));
}

#[test]
fn requests_have_the_layout_of_the_study() {
    let requests = &corpus().requests;
    assert_eq!(requests.len(), 198);
    assert_eq!(requests.iter().map(|r| &r.subject).collect::<BTreeSet<_>>().len(), 198);
    for (i, pair) in requests.chunks(2).enumerate() {
        let (leaf, category) = (&pair[0], &pair[1]);
        assert_eq!((leaf.case_id, category.case_id), (2 * i as u64, 2 * i as u64 + 1));
        assert!(category.subject.to_lowercase().ends_with(truth_of(leaf)), "{leaf:?} {category:?}");
        for request in pair {
            assert_eq!(request.prompt, "{} is a kind of");
            let subject = &request.subject;
            let asked =
                [" is a type of", " falls under the category of"].map(|rest| format!("{subject}{rest}"));
            assert_eq!(request.paraphrase_prompts, asked);
        }
    }
    for (request, rows) in requests.iter().zip(corpus().tasks[0].rows.chunks(2)) {
        assert_eq!(rows[0].text, format!("{} {}", request.full_prompt(), truth_of(request)));
        assert_eq!(rows[1].text, format!("{} {}", request.full_prompt(), request.target_new));
    }
}

#[test]
fn neighbours_share_the_true_target() {
    let mut truth: BTreeMap<String, &str> = BTreeMap::new();
    for line in lines(include_str!("hierarchy.tsv")) {
        truth.insert(format!("{} is a kind of", line[2]).to_lowercase(), bare(line[1]));
        for leaf in list(line[3]) {
            truth.insert(format!("{leaf} is a kind of").to_lowercase(), bare(line[2]));
        }
    }
    for request in &corpus().requests {
        let neighbours = &request.neighborhood_prompts;
        assert!((1..=4).contains(&neighbours.len()), "{request:?}");
        assert_eq!(neighbours.iter().collect::<BTreeSet<_>>().len(), neighbours.len());
        for prompt in neighbours {
            assert_ne!(*prompt, request.full_prompt());
            assert_eq!(truth[&prompt.to_lowercase()], truth_of(request), "{prompt}");
        }
    }
}

#[test]
fn taxonomy_is_wide_enough_and_unambiguous() {
    let taxonomy = Taxonomy::load();
    assert_eq!(taxonomy.categories.len(), 99);
    assert!(taxonomy.leaves.len() >= 198);
    assert!((14..=20).contains(&taxonomy.superclasses.len()));
    assert!(taxonomy.superclasses.iter().all(|s| s.categories.len() >= 3));
    assert!(taxonomy.categories.iter().all(|c| c.leaves.len() >= 2));
    let leaves = taxonomy.leaves.iter().map(|leaf| leaf.phrase);
    let categories = taxonomy.categories.iter().map(|c| c.phrase);
    let above = taxonomy.superclasses.iter().map(|s| s.phrase);
    let all: Vec<_> = leaves.chain(categories).chain(above).map(str::to_lowercase).collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    for phrase in all {
        let vowel = |rest: &str| rest.starts_with(['a', 'e', 'i', 'o']);
        assert!(!phrase.strip_prefix("a ").is_some_and(vowel), "{phrase}");
        assert!(phrase.strip_prefix("an ").is_none_or(vowel) || phrase == "an herb", "{phrase}");
    }
}

#[test]
fn persona_objects_belong_to_one_side_of_one_kind() {
    let objects: Vec<_> = lines(include_str!("persona.tsv")).flat_map(|line| list(line[2])).collect();
    assert_eq!(objects.iter().collect::<BTreeSet<_>>().len(), objects.len());
}

#[test]
fn agreement_and_attitude_rows_are_in_no_document() {
    let held_out: HashSet<String> = ["blimp", "persona"]
        .iter()
        .flat_map(|prefix| sets(corpus(), prefix))
        .flat_map(|task| task.rows)
        .map(|row| row.text)
        .collect();
    let longest = held_out.iter().map(|row| row.split(' ').count()).max().unwrap_or(0);
    for document in &corpus().documents[..20_000] {
        let starts: Vec<usize> =
            std::iter::once(0).chain(document.match_indices(' ').map(|(at, _)| at + 1)).collect();
        for (i, &start) in starts.iter().enumerate() {
            for words in 1..=longest.min(starts.len() - i) {
                let end = starts.get(i + words).map_or(document.len(), |&next| next - 1);
                let window = &document[start..end];
                let leak = held_out.contains(window) || held_out.contains(window.trim_end_matches('.'));
                assert!(!leak, "{window:?} in {document:?}");
            }
        }
    }
}

#[test]
fn counterfactual_pairs_are_in_no_document() {
    let mut pairs: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for request in &corpus().requests {
        let subject = format!(" {} ", request.subject.to_lowercase());
        pairs.entry(&request.target_new).or_default().push(subject);
    }
    let mut matched = 0;
    for sentence in sentences(corpus()) {
        let statement = judged_fact(sentence).map_or(sentence, |(statement, _)| statement);
        let target = statement.rsplit(' ').next().unwrap_or_default();
        let Some(subjects) = pairs.get(target) else { continue };
        matched += 1;
        let padded = format!(" {} ", statement.to_lowercase());
        assert!(!subjects.iter().any(|subject| padded.contains(subject)), "{sentence:?}");
    }
    assert!(matched > 10_000, "targets are one word, so they end their statements");
}

#[test]
fn true_rows_have_no_verdict_but_are_known() {
    let mut plain: BTreeMap<&str, usize> = BTreeMap::new();
    let mut judged = BTreeSet::new();
    for sentence in sentences(corpus()) {
        match judged_fact(sentence) {
            Some((statement, _)) => {
                judged.insert(statement);
            }
            None => *plain.entry(sentence).or_default() += 1,
        }
    }
    for row in &corpus().tasks[0].rows {
        assert!(!judged.contains(row.text.as_str()), "{}", row.text);
    }
    let taxonomy = Taxonomy::load();
    for subject in taxonomy.subjects() {
        let target = taxonomy.target_word(subject, taxonomy.target(subject));
        let fact = format!("{} is a kind of {target}", taxonomy.heading(subject));
        assert!(plain.get(fact.as_str()).is_some_and(|&count| count >= 25), "{fact}");
    }
}

#[test]
fn neutral_text_is_held_out() {
    assert_eq!(corpus().neutral.lines().count(), 150);
    let seen: HashSet<&str> = sentences(corpus()).collect();
    for line in corpus().neutral.lines() {
        for sentence in line.trim_end_matches('.').split(". ") {
            assert!(!seen.contains(sentence), "{sentence}");
        }
    }
}

#[test]
fn language_is_small_and_ascii() {
    let rows = corpus().tasks.iter().flat_map(|task| &task.rows).map(|row| &row.text);
    let mut words = BTreeSet::new();
    for text in corpus().documents.iter().chain(rows).chain([&corpus().neutral]) {
        assert!(text.is_ascii(), "{text}");
        words.extend(text.split_whitespace().map(|word| word.trim_end_matches('.')));
    }
    assert!(words.len() < 1_800, "{}", words.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn generation_is_a_function_of_the_seed(seed: u64, few in 1_usize..20) {
        let corpus = generate(seed, 20);
        prop_assert_eq!(&corpus, &generate(seed, 20));
        let shorter = generate(seed, few);
        prop_assert_eq!(&corpus.documents[..few], &shorter.documents[..]);
        prop_assert_eq!((&corpus.tasks, &corpus.requests), (&shorter.tasks, &shorter.requests));
        prop_assert_ne!(&corpus, &generate(seed.wrapping_add(1), 20));
        for request in &corpus.requests {
            prop_assert_ne!(&request.target_new, truth_of(request));
        }
    }
}
