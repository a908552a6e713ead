//! One-shot commands such as curl, with a deadline and their output.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::namespace::Namespace;
use crate::{spawn, wait};

/// A command that ends by itself.
#[derive(Debug)]
pub struct Tool {
    command: Command,
    line: String,
    namespace: Option<Namespace>,
    input: Vec<u8>,
    patience: Duration,
}

/// What a command left behind.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Tool {
    /// A program found on `PATH` or beside it in Debian's system folders.
    #[must_use]
    pub fn new(program: &str) -> Self {
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
        // A proxy of the machine has no part in this.
        for name in [
            "http_proxy",
            "https_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
        ] {
            command.env_remove(name);
        }
        Self {
            command,
            line: program.to_owned(),
            namespace: None,
            input: Vec::new(),
            patience: Duration::from_secs(120),
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        for argument in arguments {
            let text = argument.as_ref().to_string_lossy().into_owned();
            self.line.push(' ');
            if text.is_empty() || text.contains([' ', '*', '%', '{', '"', '&', '?']) {
                self.line.push_str(&format!("'{text}'"));
            } else {
                self.line.push_str(&text);
            }
            self.command.arg(argument);
        }
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it in a folder, where it may leave what it likes.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Runs it inside a network namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: Option<&Namespace>) -> Self {
        self.namespace = namespace.cloned();
        self
    }

    /// What it reads from standard input.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// The command as one would type it.
    #[must_use]
    pub fn line(&self) -> &str {
        &self.line
    }

    /// Runs it to its end, whatever that is.
    ///
    /// # Errors
    /// If it cannot be started, takes longer than two minutes or we are interrupted.
    pub fn run(mut self) -> Result<Output> {
        let mut stdin = tempfile::tempfile()?;
        stdin.write_all(&self.input)?;
        stdin.rewind()?;
        let stdout = tempfile::tempfile()?;
        let stderr = tempfile::tempfile()?;
        self.command
            .stdin(stdin)
            .stdout(Stdio::from(stdout.try_clone()?))
            .stderr(Stdio::from(stderr.try_clone()?));
        let namespace = self.namespace.as_ref().map(Namespace::handle);
        let mut child = spawn::spawn(self.command, namespace)
            .with_context(|| format!("start `{}`; is it installed?", self.line))?;
        let mut failure = None;
        let ended = wait::until(&self.line, self.patience, || match child.try_wait() {
            Ok(status) => status,
            Err(error) => {
                failure = Some(error);
                None
            }
        });
        let status = match ended {
            Ok(status) => status,
            Err(error) => {
                child.kill()?;
                child.wait()?;
                return Err(failure.map_or(error, Into::into));
            }
        };
        Ok(Output {
            status,
            stdout: read_back(stdout)?,
            stderr: read_back(stderr)?,
        })
    }

    /// Runs it and insists that it succeeds; gives its standard output.
    ///
    /// # Errors
    /// As [`Tool::run`], and if the command fails.
    pub fn succeed(self) -> Result<String> {
        let line = self.line.clone();
        let output = self.run()?;
        if !output.status.success() {
            bail!(
                "`{line}` failed ({}):\n{}{}",
                output.status,
                output.stdout,
                output.stderr
            );
        }
        Ok(output.stdout)
    }
}

fn read_back(mut file: File) -> Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
