#![no_main]

libfuzzer_sys::fuzz_target!(
    // Panics of the tokenizer library that are caught and told as errors are no findings; others still end the run.
    init: std::panic::set_hook(Box::new(|_| ())),
    |bytes: &[u8]| locus_fuzz::tokenizer(bytes)
);
