//! A datagram on the port of PJLink: an answer to a search, or a notice.

#![no_main]

use av_agent::pjlink::udp::Message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    if let Some(message) = Message::parse(datagram) {
        let _ = message.describe();
        assert_eq!(
            Message::parse(message.to_string().as_bytes()),
            Some(message)
        );
    }
});
