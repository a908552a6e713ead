//! The operators' file: tokens that work while the store does not.
//!
//! ```text
//! # NAME  ID                SHA-256 OF THE SECRET
//! jane    0123456789abcdef  e3b0c442...
//! ```
//!
//! `router registry token create --operator` writes such lines.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use config::ConfigErrors;
use config::document::{self, Position};
use config::error::{Fault, InvalidValue};
use config::net::kinds::check_label;
use daemon::files::read_owners;

use super::credential::ID_DIGITS;
use crate::registry::hex::{from_hex, to_hex};

/// More than anybody's operators.
const MAX_FILE: u64 = 1 << 20;

/// SHA-256 of the text of a token's secret.
pub(super) type Digest = [u8; 32];

/// The operators' tokens, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperatorTokens(HashMap<String, OperatorToken>);

/// One operator's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OperatorToken {
    pub(super) name: Arc<str>,
    pub(super) digest: Digest,
}

impl OperatorTokens {
    /// Parses the text of a file; `file` is its name, for errors.
    ///
    /// # Errors
    /// Everything that is wrong with it. No word of the file is repeated: somebody may have put the
    /// token itself there.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigErrors> {
        let mut tokens = HashMap::new();
        let mut faults = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let mut fault = |column: usize, field: &str, reason: InvalidValue| {
                let line = at + 1;
                faults.push(Fault {
                    position: Position { line, column },
                    field: field.to_owned(),
                    reason,
                });
            };
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let [name, id, digest] = words[..] else {
                if !words.is_empty() {
                    let reason = format!("holds {} words", words.len());
                    let help = "a line is NAME ID SHA256HEX, and what follows # is a comment";
                    fault(1, "", InvalidValue::new(reason).help(help));
                }
                continue;
            };
            let column = |word: &str| word.as_ptr().addr() - line.as_ptr().addr() + 1;
            if check_label(name).is_err() {
                let reason = InvalidValue::new("is not a name")
                    .help("use up to 63 lower-case letters, digits and inner hyphens");
                fault(column(name), "NAME", reason);
            }
            if from_hex::<{ ID_DIGITS / 2 }>(id).is_none() {
                let reason = format!("is not {ID_DIGITS} lower-case hexadecimal digits");
                fault(column(id), "ID", InvalidValue::new(reason));
            } else if tokens.contains_key(id) {
                fault(column(id), "ID", InvalidValue::new("stands twice"));
            }
            let Some(parsed) = from_hex(digest) else {
                let reason = InvalidValue::new("is not 64 lower-case hexadecimal digits")
                    .help("the SHA-256 of the token's secret stands here, never the token");
                fault(column(digest), "SHA256HEX", reason);
                continue;
            };
            let token = OperatorToken {
                name: name.into(),
                digest: parsed,
            };
            tokens.insert(id.to_owned(), token);
        }
        // Without the text, so that a report does not show the lines.
        match ConfigErrors::from_faults(file, "", faults) {
            None => Ok(Self(tokens)),
            Some(errors) => Err(errors),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, others than its owner can read or write it, or something in it is wrong.
    pub fn read(file: &Path) -> Result<Self, ConfigErrors> {
        let text = read_owners(file, MAX_FILE).map_err(|problem| problem.of(file))?;
        Self::parse(document::text_of(&text, file)?, file)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn token(&self, id: &str) -> Option<&OperatorToken> {
        self.0.get(id)
    }
}

/// A line of the file.
#[must_use]
pub fn operators_line(name: &str, id: &str, digest: &Digest) -> String {
    format!("{name} {id} {}\n", to_hex(digest))
}

/// The operators' tokens as the file had them when it was last right.
#[derive(Debug)]
pub struct OperatorsFile {
    file: PathBuf,
    tokens: ArcSwap<OperatorTokens>,
}

impl OperatorsFile {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// As [`OperatorTokens::read`]: a registry does not start on a file that it cannot use.
    pub fn open(file: &Path) -> Result<Self, ConfigErrors> {
        Ok(Self {
            file: file.to_owned(),
            tokens: ArcSwap::from_pointee(OperatorTokens::read(file)?),
        })
    }

    /// Reads it again. A file that is wrong or gone changes nothing but the log: to take a token
    /// away, delete its line.
    pub fn reload(&self) {
        match OperatorTokens::read(&self.file) {
            Ok(tokens) if tokens == **self.tokens.load() => {}
            Ok(tokens) => {
                tracing::info!(file = %self.file.display(), tokens = tokens.len(), "operators' tokens read");
                self.tokens.store(Arc::new(tokens));
            }
            Err(errors) => {
                tracing::error!(%errors, "operators' tokens stay as they were");
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// The tokens now.
    pub fn tokens(&self) -> Arc<OperatorTokens> {
        self.tokens.load_full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    const ID: &str = "0123456789abcdef";
    const OTHER: &str = "00000000000000ff";

    fn digest() -> String {
        "5a".repeat(32)
    }

    fn parse(text: &str) -> Result<OperatorTokens, String> {
        OperatorTokens::parse(text, Path::new("operators")).map_err(|errors| errors.report())
    }

    #[test]
    fn lines_comments_and_nothing_are_read() {
        let line = operators_line("jane", ID, &[0x5a; 32]);
        let text = format!("# ours\n\n{line}  joe\t{OTHER} {}  # for CI\r\n", digest());
        let tokens = parse(&text).unwrap();
        assert_eq!(tokens.len(), 2);
        let jane = tokens.token(ID).unwrap();
        assert_eq!((&*jane.name, jane.digest), ("jane", [0x5a; 32]));
        assert_eq!(&*tokens.token(OTHER).unwrap().name, "joe");
        assert!(tokens.token("x").is_none() && parse("").unwrap().is_empty());
    }

    #[test]
    fn everything_that_is_wrong_is_told_with_its_line_and_field_and_no_secret() {
        let secret = "c0ffee".repeat(12);
        let digest = digest();
        let text = format!(
            "Jane {ID} {digest}\n\njoe ghr_{secret} {digest}\njoe {OTHER} {secret}\n\
             joe {ID} {digest}\njoe {digest}\n"
        );
        let errors = parse(&text).unwrap_err();
        for says in [
            "operators:1:1: NAME: is not a name",
            "operators:3:5: ID: is not 16 ",
            "operators:4:22: SHA256HEX: is not 64 ",
            "operators:5:5: ID: stands twice",
            "operators:6:1: holds 2 words",
            "5 errors",
        ] {
            assert!(errors.contains(says), "{says}: {errors}");
        }
        assert!(!errors.contains("c0ffee"), "{errors}");
    }

    #[test]
    fn a_file_that_others_can_use_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("operators");
        fs::write(&file, operators_line("jane", ID, &[0x5a; 32])).unwrap();
        for (mode, right) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o620, false),
        ] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let read = OperatorTokens::read(&file);
            assert_eq!(read.is_ok(), right, "{mode:o}");
            if let Err(errors) = read {
                let errors = errors.to_string();
                assert!(errors.contains(&format!("mode 0{mode:o}")), "{errors}");
                assert!(errors.contains("chmod go="), "{errors}");
            }
        }
    }

    #[test]
    fn a_file_is_read_anew_and_a_bad_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("operators");
        assert!(OperatorsFile::open(&path).is_err(), "there is none");
        let write = |text: &str| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        write(&operators_line("jane", ID, &[0x5a; 32]));
        let file = OperatorsFile::open(&path).unwrap();
        write("jane");
        file.reload();
        assert!(file.tokens().token(ID).is_some(), "a bad file");
        fs::remove_file(&path).unwrap();
        file.reload();
        assert!(file.tokens().token(ID).is_some(), "no file");
        write(&operators_line("joe", OTHER, &[0x5a; 32]));
        file.reload();
        assert!(file.tokens().token(ID).is_none() && file.tokens().token(OTHER).is_some());
    }
}
