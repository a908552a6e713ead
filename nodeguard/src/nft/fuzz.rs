//! What must hold for any bytes that claim to come from the kernel. The fuzz target
//! `netlink_reply` and the test that replays its corpus call this; it panics on a violation.

use super::reply::{Body, Object, Replies};
use super::seen::{self, SeenChain, SeenObject, SeenRule, SeenSet, SeenTable};

/// A datagram of answers: everything in it is read as everything that it could be. What comes out
/// is never longer than what went in.
pub fn netlink_reply(datagram: &[u8]) {
    let mut messages = 0;
    for reply in Replies::new(datagram) {
        let Ok(reply) = reply else { break };
        messages += 1;
        match reply.body {
            Body::Object(object) => read(&object, datagram.len()),
            Body::Verdict {
                text: Some(text), ..
            } => assert!(text.len() <= 3 * datagram.len()),
            _ => {}
        }
    }
    assert!(messages <= datagram.len() / 16);
}

fn read(object: &Object<'_>, limit: usize) {
    let _ = SeenTable::read(object);
    let _ = SeenChain::read(object);
    let _ = SeenObject::read(object);
    let _ = seen::generation(object);
    if let Ok(rule) = SeenRule::read(object) {
        let bytes = rule.expressions.iter().flat_map(|it| &it.attributes);
        let total: usize = bytes.map(|(_, payload)| payload.len()).sum();
        assert!(total <= limit, "{total} bytes of expressions");
    }
    if let Ok(set) = SeenSet::read(object) {
        assert!(set.expressions.len() <= limit / 4);
    }
    if let Ok((_, _, elements)) = seen::elements(object) {
        let total: usize = elements.iter().map(|it| it.key.len()).sum();
        assert!(total <= limit, "{total} bytes of keys");
    }
}
