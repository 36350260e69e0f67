//! Text from a file or a caller, made fit for a message.

/// Characters of it that a message shows at most.
const SHOWN: usize = 120;

/// The text with whatever could disturb a terminal or a reader spelled out: control
/// characters, escape sequences, marks that turn the direction of writing; and cut off
/// where it is long.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == SHOWN {
            shown.push_str("...");
            break;
        }
        match c {
            '"' | '\'' | '\\' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_disturbs_is_spelled_out_and_the_rest_is_kept() {
        assert_eq!(printable("0.weight_ih_l0 \"größe\""), "0.weight_ih_l0 \"größe\"");
        assert_eq!(
            printable("../a\0b\nc\u{1b}[31m\u{202e}x\u{2066}"),
            "../a\\0b\\nc\\u{1b}[31m\\u{202e}x\\u{2066}"
        );
        assert_eq!(printable(&"a".repeat(1000)).len(), 123);
    }
}
