//! Server-sent events, as the WHATWG's HTML standard defines them (section 9.2): a stream of bytes
//! becomes events, none of which takes more than a bound of memory.

/// Bytes of one event at most: a route may have many sources.
const MAX_EVENT: usize = 4 << 20;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerEvent {
    /// What to send as Last-Event-ID to go on after it; `None` if there was none in the stream yet.
    pub id: Option<String>,
    /// What kind of event; `message` if the stream does not say.
    pub kind: String,
    /// Its lines of data.
    pub data: String,
}

/// An event, or a line of it, is longer than a client takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {MAX_EVENT} bytes")]
pub(super) struct TooLong;

/// Takes bytes, gives events.
#[derive(Debug, Default)]
pub(super) struct EventParser {
    /// The line that has begun.
    line: Vec<u8>,
    /// The last byte was a carriage return, so that a line feed belongs to it.
    after_return: bool,
    /// Whether there was a line before: only the first may begin with a byte order mark.
    begun: bool,
    id: Option<String>,
    kind: Option<String>,
    data: Option<String>,
}

impl EventParser {
    /// Takes the next bytes and appends the events that they complete.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        events: &mut impl Extend<ServerEvent>,
    ) -> Result<(), TooLong> {
        for &byte in bytes {
            match byte {
                b'\n' if std::mem::take(&mut self.after_return) => {}
                b'\n' | b'\r' => {
                    self.after_return = byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    events.extend(self.end_line(&line));
                }
                byte => {
                    self.after_return = false;
                    let held = self.data.as_ref().map_or(0, String::len);
                    if self.line.len() + held >= MAX_EVENT {
                        return Err(TooLong);
                    }
                    self.line.push(byte);
                }
            }
        }
        Ok(())
    }

    fn end_line(&mut self, line: &[u8]) -> Option<ServerEvent> {
        let line = match line.strip_prefix(b"\xef\xbb\xbf") {
            Some(rest) if !self.begun => rest,
            _ => line,
        };
        self.begun = true;
        if line.is_empty() {
            return self.dispatch();
        }
        let line = String::from_utf8_lossy(line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.kind = Some(value.to_owned()),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            // A comment, `retry`, or what a newer registry sends.
            _ => {}
        }
        None
    }

    /// Events without data are dispatched as well, unlike in a browser: some need none.
    fn dispatch(&mut self) -> Option<ServerEvent> {
        let event = match (self.kind.take(), self.data.take()) {
            (None, None) => return None,
            (kind, data) => ServerEvent {
                id: self.id.clone(),
                kind: kind.unwrap_or_else(|| "message".to_owned()),
                data: data.unwrap_or_default(),
            },
        };
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(id: Option<&str>, kind: &str, data: &str) -> ServerEvent {
        ServerEvent {
            id: id.map(str::to_owned),
            kind: kind.to_owned(),
            data: data.to_owned(),
        }
    }

    fn parse(text: &[u8]) -> Vec<ServerEvent> {
        let mut events = Vec::new();
        EventParser::default().push(text, &mut events).unwrap();
        events
    }

    #[test]
    fn events_have_ids_kinds_and_lines_of_data() {
        let text = b"\xef\xbb\xbf: hello\n\nevent: route\nid: 7\ndata: {\"a\":\ndata:1}\n\n\
            data\n\n:\n\nevent:synced\nid:8\n\nretry: 5\nother: x\n\ndata: unfinished";
        assert_eq!(
            parse(text),
            [
                event(Some("7"), "route", "{\"a\":\n1}"),
                event(Some("7"), "message", ""),
                event(Some("8"), "synced", ""),
            ]
        );
    }

    #[test]
    fn an_endless_line_or_event_is_refused() {
        let mut parser = EventParser::default();
        let mut events = Vec::new();
        let line = vec![b'x'; MAX_EVENT + 1];
        assert_eq!(parser.push(&line, &mut events), Err(TooLong));
        let mut parser = EventParser::default();
        let lines = b"data: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n".repeat(MAX_EVENT / 32);
        assert_eq!(parser.push(&lines, &mut events), Err(TooLong));
        assert_eq!(events, []);
    }

    proptest! {
        /// Wherever the stream is cut and however lines end, the events are the same.
        #[test]
        fn cuts_and_line_ends_change_nothing(
            cut in 0_usize..60,
            end in prop::sample::select(vec!["\n", "\r", "\r\n"]),
        ) {
            let lines = ["id: 1", "event: a", "data: x", "data: y", "", ": c", "data: z", ""];
            let text = lines.map(|line| format!("{line}{end}")).concat();
            let (head, tail) = text.as_bytes().split_at(cut.min(text.len()));
            let mut parser = EventParser::default();
            let mut events = Vec::new();
            parser.push(head, &mut events).unwrap();
            parser.push(tail, &mut events).unwrap();
            let expected = [event(Some("1"), "a", "x\ny"), event(Some("1"), "message", "z")];
            prop_assert_eq!(events, expected);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut events = Vec::new();
            let mut parser = EventParser::default();
            prop_assert!(parser.push(&bytes, &mut events).is_ok());
        }
    }
}
