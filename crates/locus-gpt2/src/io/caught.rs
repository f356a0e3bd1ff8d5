//! Calls of a library that may panic on what a file or a text holds.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether panics of this thread are caught, and so are nobody's news.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Runs a call; a panic becomes an error text of one line and is not reported on stderr.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            if !CAUGHT.get() {
                before(info);
            }
        }));
    });
    let outer = CAUGHT.replace(true);
    // Nothing that the call could leave half-changed is used after a panic, but for caches behind locks.
    let result = catch_unwind(AssertUnwindSafe(call));
    CAUGHT.set(outer);
    result.map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        format!("the tokenizers library failed: {}", text.lines().next().unwrap_or_default())
    })
}
