//! Errors in words.

/// An error with all its causes; the outermost alone is "transport error".
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Many repeat what is beneath them.
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Failed {
        text: &'static str,
        source: Option<Box<Failed>>,
    }

    #[test]
    fn every_cause_is_told_once() {
        let chain = ["a: b", "b", "c"]
            .into_iter()
            .rev()
            .fold(None, |source, text| Some(Box::new(Failed { text, source })));
        assert_eq!(with_causes(&*chain.unwrap()), "a: b: c");
    }
}
