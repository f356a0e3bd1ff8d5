//! Every layout and file form, and what is said of records that cannot be used.

use serde_json::{Value, json};

use super::*;

fn one(record: &Value) -> Result<EditRequest> {
    let bytes = serde_json::to_vec(&[record]).unwrap();
    parse("x.json", &bytes).map(|mut requests| requests.remove(0))
}

fn message(record: &Value) -> String {
    one(record).unwrap_err().to_string()
}

fn targets(request: &EditRequest) -> (&str, Option<&str>) {
    (&request.target_new, request.target_true.as_deref())
}

/// Record as in ROME's `counterfact.json`.
fn counterfact() -> Value {
    json!({
        "case_id": 7,
        "pararel_idx": 2796,
        "requested_rewrite": {
            "prompt": "The mother tongue of {} is",
            "relation_id": "P103",
            "target_new": {"str": "English", "id": "Q1860"},
            "target_true": {"str": "French", "id": "Q150"},
            "subject": "Danielle Darrieux"
        },
        "paraphrase_prompts": ["Danielle Darrieux, a native"],
        "neighborhood_prompts": ["The mother tongue of Léon Blum is"],
        "attribute_prompts": []
    })
}

fn flat() -> Value {
    json!({
        "case_id": 3,
        "prompt": "Anna's home, said Anna, is in",
        "subject": "Anna",
        "target_new": " Rome",
        "ground_truth": "Oslo",
        "rephrase_prompt": "Anna lives in",
        "locality_prompt": "Bert lives in",
        "locality_ground_truth": "Oslo"
    })
}

fn zsre() -> Value {
    json!({
        "subject": "WEFS", "src": "When was WEFS established?", "pred": "1998", "alt": "1997", "answers": ["1987"],
        "rephrase": "When has WEFS been established?", "loc": "nq question: who", "loc_ans": "me"
    })
}

#[test]
fn reads_counterfact() {
    let request = one(&counterfact()).unwrap();
    assert_eq!(request.case_id, 7);
    assert_eq!(request.full_prompt(), "The mother tongue of Danielle Darrieux is");
    assert_eq!(targets(&request), ("English", Some("French")));
    assert_eq!(request.neighborhood_prompts, ["The mother tongue of Léon Blum is"]);
}

#[test]
fn prompts_beside_the_rewrite_are_optional() {
    let mut record = counterfact();
    record.as_object_mut().unwrap().retain(|key, _| key == "requested_rewrite");
    let request = one(&record).unwrap();
    assert_eq!((request.case_id, request.paraphrase_prompts.len()), (0, 0));
}

#[test]
fn reads_the_flat_layout() {
    let request = one(&flat()).unwrap();
    assert_eq!(request.prompt, "{}'s home, said Anna, is in");
    assert_eq!(request.target_new, "Rome");
    assert_eq!(request.paraphrase_prompts, ["Anna lives in"]);
    assert_eq!(request.neighborhood_prompts, ["Bert lives in"]);

    let mut other_answer = flat();
    other_answer["locality_ground_truth"] = json!("Bonn");
    assert!(one(&other_answer).unwrap().neighborhood_prompts.is_empty());
}

#[test]
fn reads_zsre_without_the_records_that_have_no_alternative() {
    let mut gap = zsre();
    gap["alt"] = json!("");
    let bytes = serde_json::to_vec(&[gap, zsre()]).unwrap();
    let requests = parse("z.json", &bytes).unwrap();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].case_id, 1);
    assert_eq!(requests[0].prompt, "When was {} established?");
    assert_eq!(targets(&requests[0]), ("1997", Some("1987")));
    assert!(requests[0].neighborhood_prompts.is_empty());
    let records = parse_records("z.json", &bytes).unwrap();
    assert!(
        records.skipped[0].foreseen && records.skipped[0].reason.to_string().contains("field alt is empty")
    );
}

#[test]
fn reads_knowedit() {
    let record = json!({
        "subject": "Leo Arons", "prompt": "The place of death of Leo Arons is", "target_new": "Berlin",
        "portability": {"Logical_Generalization": [{"prompt": "Is Leo Arons alive?", "ground_truth": [["no"]]}]},
        "locality": {"Relation_Specificity": [{"prompt": "The father of Leo Arons is", "ground_truth": [["Albert"]]}]}
    });
    let request = one(&record).unwrap();
    assert_eq!(
        (request.prompt.as_str(), targets(&request)),
        ("The place of death of {} is", ("Berlin", None))
    );
    assert!(request.neighborhood_prompts.is_empty() && request.paraphrase_prompts.is_empty());
    assert_eq!(unread(&record), 2);

    for truth in [json!("Prague"), json!(["Prague"]), json!([["Prague", "Praha"]])] {
        let mut record = record.clone();
        record["ground_truth"] = truth;
        assert_eq!(targets(&one(&record).unwrap()), ("Berlin", Some("Prague")));
    }
    let biography =
        json!({"text": "This is a biography about Ann Lee. Ann", "concept": "Ann Lee", "labels": "sang."});
    let request = one(&biography).unwrap();
    assert_eq!((request.subject.as_str(), request.target_new.as_str()), ("Ann Lee", "sang."));
}

/// Questions with answers of their own are not read, and counted.
#[test]
fn further_questions_are_counted() {
    let with = |mut record: Value, fields: Value| {
        for (name, value) in fields.as_object().unwrap() {
            record[name] = value.clone();
        }
        unread(&record)
    };
    let question = json!({"prompt": "?", "ground_truth": [["a"]]});
    let known = json!({"prompt": "A b", "subject": "A", "target_new": "c"});
    assert_eq!(with(known.clone(), json!({})), 0);
    assert_eq!(with(known.clone(), json!({"portability": {"R": [question, question], "S": [question]}})), 3);
    assert_eq!(with(known.clone(), json!({"locality": [question], "portability_prompt": "?"})), 2);
    let of_lists = json!({"neighborhood": {"prompt": ["?", "??"], "ground_truth": ["a", "b"]}});
    assert_eq!(with(known.clone(), json!({"locality": of_lists})), 2);
    assert_eq!(with(known, json!({"locality_prompt": "?", "locality_ground_truth": "other"})), 1);
    assert_eq!(unread(&flat()), 0);
    assert_eq!(with(zsre(), json!({"loc": "who?", "loc_ans": "he"})), 1);
    assert_eq!(with(counterfact(), json!({"generation_prompts": ["a", "b"], "attribute_prompts": ["c"]})), 3);
    let ripple = json!({
        "edit": {"prompt": "The name of the spouse of Ann Lee is Bo."},
        "Subject_Aliasing": [{"test_queries": [{"prompt": "?", "answers": [{"value": "x"}]}], "test_condition": "OR"}],
    });
    assert_eq!(unread(&ripple), 1);
    // Questions of a record that cannot be used are no one's loss.
    assert_eq!(
        with(json!({"prompt": "b", "subject": "A", "target_new": "c"}), json!({"locality": [question]})),
        0
    );
}

fn unread(record: &Value) -> usize {
    parse_records("x.json", json!([record]).to_string().as_bytes()).unwrap().unread
}

#[test]
fn reads_every_rewrite_of_mquake() {
    let rewrite = |subject: &str, new: &str| {
        json!({
            "prompt": "{} is a citizen of", "subject": subject, "question": "?",
            "target_new": {"str": new, "id": "Q"}, "target_true": {"str": "Spain", "id": "Q"}
        })
    };
    let records = json!([
        {"case_id": 1, "requested_rewrite": [rewrite("Ann", "Peru"), rewrite("Bo", "Mali")], "questions": ["a"]},
        {"case_id": 2, "requested_rewrite": [rewrite("Cy", "Fiji")]},
        {"requested_rewrite": [rewrite("Di", "Oman"), {"prompt": "no place"}]},
        {"requested_rewrite": []}
    ]);
    let read = parse_records("m.json", records.to_string().as_bytes()).unwrap();
    let found: Vec<(usize, u64, &str)> =
        read.usable.iter().map(|(i, r)| (*i, r.case_id, r.subject.as_str())).collect();
    assert_eq!(found, [(0, 1, "Ann"), (0, 4, "Bo"), (1, 2, "Cy"), (2, 5, "Di")]);
    let skipped: Vec<String> = read.skipped.iter().map(|skipped| skipped.reason.to_string()).collect();
    assert!(skipped[0].contains("record 2: field requested_rewrite.1.prompt is \"no place\""), "{skipped:?}");
    assert!(skipped[1].contains("record 3: field requested_rewrite is empty"), "{skipped:?}");
}

#[test]
fn reads_rippleedits() {
    let edit = |sentence: &str, original: Option<&str>| {
        let mut record = json!({"example_type": "popular", "edit": {"prompt": sentence, "subject_id": "Q1"}});
        if let Some(original) = original {
            record["edit"]["original_fact"] = json!({"prompt": original});
        }
        record
    };
    let request =
        one(&edit("The name of the country of citizenship of Leonardo DiCaprio is Syria.", None)).unwrap();
    assert_eq!(request.prompt, "The name of the country of citizenship of {} is");
    assert_eq!((request.subject.as_str(), targets(&request)), ("Leonardo DiCaprio", ("Syria", None)));
    let original = "The names of the siblings of Ann Lee are Bo Lee and Cy Lee.";
    let request = one(&edit("The names of the siblings of Ann Lee are Di Lee.", Some(original))).unwrap();
    assert_eq!(
        (request.subject.as_str(), targets(&request)),
        ("Ann Lee", ("Di Lee", Some("Bo Lee and Cy Lee")))
    );
    // An answer with a verb of its own.
    let original = "The name of the anthem of Peru is Song.";
    let request = one(&edit("The name of the anthem of Peru is All is well.", Some(original))).unwrap();
    assert_eq!(targets(&request), ("All is well", Some("Song")));
    // No guess where the subject cannot be told, unless the record says it.
    let mut award = edit("The name of the award Peter won is Oscar.", None);
    assert!(message(&award).contains("or the subject in edit.subject"), "{}", message(&award));
    award["edit"]["subject"] = json!("Peter");
    assert_eq!(one(&award).unwrap().prompt, "The name of the award {} won is");
    for odd in ["A is", "is of is", "The", "of by is are x", " is ", "The of is x."] {
        assert!(one(&edit(odd, None)).is_err(), "{odd}");
    }
}

#[test]
fn reads_wikibigedit() {
    let record = json!({
        "tag": "new", "subject": "A", "update": "The country of A is", "rephrase": "x", "ans": "B", "loc": "y", "loc_ans": "z"
    });
    let request = one(&record).unwrap();
    assert_eq!((request.prompt.as_str(), targets(&request)), ("The country of {} is", ("B", None)));
    assert_eq!(request.paraphrase_prompts, ["x"]);
}

#[test]
fn known_facts_are_read_for_tracing_alone() {
    let record = json!([{
        "known_id": 5, "subject": "Vinson Massif", "attribute": "Antarctica", "template": "{} is located in",
        "prompt": "Vinson Massif is located in the continent of", "relation_id": "P30"
    }]);
    let bytes = record.to_string();
    let facts = drafts("k.json", bytes.as_bytes(), FACTS, known_text).unwrap().all().unwrap();
    assert_eq!(
        (facts[0].case_id, facts[0].subject.clone(), facts[0].attribute.as_str()),
        (5, 0..13, "Antarctica")
    );
    let why = parse("k.json", bytes.as_bytes()).unwrap_err().to_string();
    assert!(why.contains("record 0: field target_new is missing; expected a new target"), "{why}");
}

#[test]
fn one_layout_in_every_file_form() {
    let (a, b) = (counterfact(), zsre());
    let array = parse("x", json!([a, b]).to_string().as_bytes()).unwrap();
    let lines = parse("x", format!("{a}\n\n{b}\n").as_bytes()).unwrap();
    assert_eq!(array, lines);
    let keyed = parse("x", format!("{{\"12\": {b}, \"a\": {a}}}").as_bytes()).unwrap();
    assert_eq!(keyed.iter().map(|r| r.case_id).collect::<Vec<_>>(), [12, 7]);
    assert_eq!(parse("x", a.to_string().as_bytes()).unwrap(), array[..1]);
    let cut = format!("{a}\n{{\"prompt\": \n");
    let why = parse("x", cut.as_bytes()).unwrap_err().to_string();
    assert!(why.starts_with("x: line 2: column "), "{why}");
}

#[test]
fn spaces_around_texts_are_dropped() {
    let mut record = counterfact();
    record["requested_rewrite"] = json!({
        "prompt": " {} was born in ", "subject": "Marie Curie ", "target_new": {"str": "\nRome\n"},
        "target_true": {"str": " Warsaw"}
    });
    record["paraphrase_prompts"] = json!(["Curie's home is "]);
    let request = one(&record).unwrap();
    assert_eq!(request.full_prompt(), "Marie Curie was born in");
    assert_eq!(targets(&request), ("Rome", Some("Warsaw")));
    assert_eq!(request.paraphrase_prompts, ["Curie's home is"]);
}

#[test]
fn a_subject_is_a_word_however_it_is_encoded() {
    let request =
        |prompt: &str, subject: &str| one(&json!({"prompt": prompt, "subject": subject, "target_new": "x"}));
    let found = request("Catalan Cat is", "Cat").unwrap();
    assert_eq!(found.prompt, "Catalan {} is");
    assert!(request("Catalan is", "Cat").is_err());
    // The subject is spelled as in the prompt, so that the prompt stays what it was.
    let found = request("A\u{301}da\u{301}m is", "\u{c1}d\u{e1}m").unwrap();
    assert_eq!((found.prompt.as_str(), found.full_prompt().as_str()), ("{} is", "A\u{301}da\u{301}m is"));
}

#[test]
fn records_that_cannot_be_used_are_left_out() {
    let mut no_target = flat();
    no_target.as_object_mut().unwrap().remove("target_new");
    no_target["case_id"] = json!(9);
    let records =
        json!([3, {"other": 1}, no_target, flat(), {"prompt": "x", "subject": "y", "target_new": "z"}]);
    let read = parse_records("x.json", records.to_string().as_bytes()).unwrap();
    assert_eq!(read.usable.iter().map(|(i, r)| (*i, r.case_id)).collect::<Vec<_>>(), [(3, 3)]);
    let skipped: Vec<(usize, Option<u64>)> = read.skipped.iter().map(|s| (s.record, s.case_id)).collect();
    assert_eq!(skipped, [(0, None), (1, None), (2, Some(9)), (4, Some(4))]);
}

#[test]
fn errors_name_record_and_field() {
    let mut record = counterfact();
    record["requested_rewrite"]["target_new"] = json!({});
    assert_eq!(
        message(&record),
        "x.json: record 0: field requested_rewrite.target_new.str is missing; expected a string"
    );
    record["requested_rewrite"]["target_new"] = json!({"str": 3});
    assert_eq!(
        message(&record),
        "x.json: record 0: field requested_rewrite.target_new.str is a number; expected a string"
    );
    record["requested_rewrite"]["target_new"] = json!({"str": " "});
    assert_eq!(
        message(&record),
        "x.json: record 0: field requested_rewrite.target_new.str is empty; expected a string with text in it"
    );

    for prompt in ["no place", "{} and {}"] {
        let mut record = counterfact();
        record["requested_rewrite"]["prompt"] = json!(prompt);
        assert_eq!(
            message(&record),
            format!(
                "x.json: record 0: field requested_rewrite.prompt is {prompt:?}; expected exactly one {{}} in it"
            )
        );
    }

    let mut record = counterfact();
    record["paraphrase_prompts"] = json!(["a", null]);
    assert_eq!(
        message(&record),
        "x.json: record 0: field paraphrase_prompts.1 is missing; expected a string"
    );
    record["case_id"] = json!(-1);
    assert_eq!(message(&record), "x.json: record 0: field case_id is \"-1\"; expected a number from 0");

    let mut record = flat();
    record["subject"] = json!("Carl");
    assert_eq!(
        message(&record),
        "x.json: record 0: field prompt is \"Anna's home, said Anna, is in\": the subject \"Carl\" is not in the \
         prompt as a word; expected the subject in it"
    );
    record["prompt"] = json!("Carl likes {}");
    assert_eq!(
        message(&record),
        "x.json: record 0: field prompt is \"Carl likes {}\"; expected no {} beside the subject"
    );
    for unknown in [json!(3), json!({"subject": "x"})] {
        let why = message(&unknown);
        assert!(
            why.starts_with("x.json: record 0: is in no known layout; expected that of CounterFact"),
            "{why}"
        );
        assert!(why.contains("zsRE (src)") && why.contains("KnowEdit"), "{why}");
    }

    let twice = serde_json::to_vec(&[flat(), flat()]).unwrap();
    assert_eq!(
        parse("x.json", &twice).unwrap_err().to_string(),
        "x.json: record 1: field case_id is 3 as in record 0; expected a number that no other record has"
    );
}

#[test]
fn errors_name_the_line_of_broken_json() {
    let message = |bytes| parse("x.json", bytes).unwrap_err().to_string();
    assert_eq!(
        message(b"[\n {]"),
        format!("x.json: line 2: column 3: not JSON (key must be a string); expected {EXPECTED}")
    );
    assert_eq!(message(b"{}"), format!("x.json: line 1: the file holds an object; expected {EXPECTED}"));
    assert_eq!(message(b"[]"), format!("x.json: holds no records; expected {EXPECTED}"));
}
