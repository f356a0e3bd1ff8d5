//! What the writers write, the parsers read back, whatever the text.

use locus_data::{EditRequest, Labelled, labelled, pairs, requests};
use proptest::prelude::*;

/// Text with everything that CSV and JSON treat specially, and more than white space.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[\"',;\\\\\n\r\t {}a-z]{0,30}", "\\PC{0,30}"].prop_map(|text| format!("x{text}"))
}

fn rows() -> impl Strategy<Value = Vec<Labelled>> {
    prop::collection::vec((text(), 0u8..=1).prop_map(|(text, label)| Labelled { text, label }), 1..20)
}

/// Text without white space around it, as requests have it.
fn trimmed() -> impl Strategy<Value = String> {
    text().prop_map(|text| text.trim().to_owned())
}

fn request() -> impl Strategy<Value = EditRequest> {
    // An opening brace less, so that the placeholder stays the only one.
    let bare = || trimmed().prop_map(|text| text.replace('{', "").trim().to_owned());
    let prompts = || prop::collection::vec(trimmed(), 0..4);
    let answer = prop::option::of(trimmed());
    (bare(), trimmed(), trimmed(), answer, prompts(), prompts()).prop_map(
        |(prompt, subject, target_new, target_true, paraphrase_prompts, neighborhood_prompts)| EditRequest {
            case_id: 0,
            prompt: format!("{{}} {prompt}"),
            subject,
            target_new,
            target_true,
            paraphrase_prompts,
            neighborhood_prompts,
        },
    )
}

proptest! {
    #[test]
    fn labelled_rows(rows in rows()) {
        prop_assert_eq!(labelled::parse("x.csv", labelled::render(&rows).as_bytes()).unwrap(), rows);
    }

    #[test]
    fn edit_requests(mut list in prop::collection::vec(request(), 1..6), first in 0u64..u64::MAX - 6) {
        for (i, request) in list.iter_mut().enumerate() {
            request.case_id = first + i as u64;
        }
        prop_assert_eq!(requests::parse("x.json", requests::render(&list).as_bytes()).unwrap(), list);
    }

    /// No input makes a parser panic, and every refusal is one line that starts with the file.
    #[test]
    fn arbitrary_bytes_are_refused_politely(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut refusals = Vec::new();
        refusals.extend(labelled::parse("x", &bytes).err());
        refusals.extend(requests::parse("x", &bytes).err());
        refusals.extend(pairs::parse_jsonl("x", &bytes).err());
        refusals.extend(requests::parse("x", &[b"{}\n", &bytes[..]].concat()).err());
        refusals.extend(labelled::parse("x", &[b"text,label\n", &bytes[..]].concat()).err());
        for message in refusals.iter().map(ToString::to_string) {
            prop_assert!(message.starts_with("x: ") && message.lines().count() == 1, "{}", message);
        }
    }
}
