//! Request files as they are distributed, with GPT-2's tokenizer: no record stops the others.

use std::io::Write;

use locus_circuits::KnownFact;
use locus_data::requests;
use locus_editors::PREFIXES;
use locus_gpt2::{Config, Tokenizer};
use locus_study::protocol::Preparation;

use crate::support::shared_data;

/// Number of records of a file that can be edited by ROME, and the reasons of the others.
fn prepared(path: &std::path::Path, tokenizer: &Tokenizer) -> (usize, Vec<String>) {
    let config = Config::new(12, 12, 768, 1024, 50_257);
    let prefixes = Some(PREFIXES.map(str::to_owned).to_vec());
    let preparation = Preparation { tokenizer, config: &config, prefixes, before: None };
    let records = requests::read_records(path).unwrap();
    let mut skipped: Vec<String> = records.skipped.iter().map(|skipped| skipped.reason.to_string()).collect();
    let mut usable = 0;
    for (record, request) in &records.usable {
        match preparation.prepare(request) {
            Ok((prepared, fact)) => {
                usable += 1;
                assert_eq!(prepared.prompt(), fact.contexts[0].tokens, "record {record}: edited as measured");
                let end = fact.contexts[0].subject_last;
                let text = tokenizer.decode(&prepared.prompt()[..=end]).unwrap();
                assert!(text.contains(&request.subject), "record {record}: {text:?}");
            }
            Err(error) => skipped.push(format!("record {record}: {error:#}")),
        }
    }
    (usable, skipped)
}

#[test]
fn every_record_is_read_or_listed() {
    let Some(data) = shared_data() else { return };
    let tokenizer = Tokenizer::read(&data.join("gpt2-tokenizer")).unwrap();
    let (usable, skipped) = prepared(&data.join("counterfact/counterfact-edit-1k.json"), &tokenizer);
    assert_eq!((usable, skipped.len()), (1000, 0), "{skipped:?}");

    // Two records without a counterfactual, and those whose new answer is the true one.
    let (usable, skipped) = prepared(&data.join("zsre/zsre_mend_train-1k.json"), &tokenizer);
    let same = skipped.iter().filter(|why| why.contains("is the true one")).count();
    assert_eq!((usable, same, skipped.len()), (981, 17, 19), "{skipped:?}");

    let facts = requests::read_known(data.join("tracing/known_1000.json")).unwrap();
    assert_eq!((facts.usable.len(), facts.skipped.len()), (1209, 0));
    let mut longer = 0;
    for (record, fact) in &facts.usable {
        match KnownFact::located(&tokenizer, &fact.prompt, fact.subject.clone(), &fact.attribute) {
            Ok(known) => assert!(known.subject.end <= known.prompt.len(), "record {record}"),
            Err(error) => {
                assert!(error.to_string().contains("tokens; expected one"), "record {record}: {error}");
                longer += 1;
            }
        }
    }
    // Not `println`, which the test harness swallows when a test passes.
    let _ = writeln!(std::io::stderr(), "known_1000: {longer} of 1209 answers have several tokens");
}
