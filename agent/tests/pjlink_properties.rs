//! What holds of the PJLink parsers whatever comes: they never panic, and what
//! is printed is read back as it was.

// The helpers of a test are outside what clippy takes for one.
#![allow(clippy::unwrap_used, reason = "a test stops at what it cannot have")]

use av_agent::pjlink::lines::{LINE_MAX, Lines};
use av_agent::pjlink::protocol::{Answer, Class, Greeting, Query, parse_answer, parse_greeting};
use av_agent::pjlink::udp::Message;
use av_agent::pjlink::value::{
    Health, PARTS, Power, Resolution, Signal, parse_class, parse_errors, parse_flag, parse_hours,
    parse_input, parse_inputs, parse_lamps, parse_mute, parse_resolution, parse_signal,
};
use pnet::util::MacAddr;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

fn queries() -> impl Strategy<Value = Query> {
    let mut all: Vec<Query> = Query::FIRST.into();
    for class in [Class::One, Class::Two] {
        all.extend(Query::rest(class));
    }
    select(all)
}

fn health() -> impl Strategy<Value = Health> {
    select(vec![Health::Ok, Health::Warning, Health::Error])
}

fn power() -> impl Strategy<Value = Power> {
    select(vec![Power::Off, Power::On, Power::Cooling, Power::WarmUp])
}

fn mac() -> impl Strategy<Value = MacAddr> {
    any::<[u8; 6]>().prop_map(|m| MacAddr::new(m[0], m[1], m[2], m[3], m[4], m[5]))
}

/// Every line of `pieces`, and what is left at the end.
fn lines(pieces: &[&[u8]]) -> Vec<String> {
    let mut lines = Lines::default();
    let mut all = Vec::new();
    for piece in pieces {
        lines.push(piece);
        while let Ok(Some(line)) = lines.next_line() {
            all.push(line);
        }
    }
    all.extend(lines.rest());
    all
}

/// Bytes of which many are what PJLink is made of.
fn likely() -> impl Strategy<Value = Vec<u8>> {
    let words = select(vec![
        &b"PJLINK "[..],
        b"0",
        b"1 498e4a67",
        b"ERRA",
        b"%1POWR=",
        b"%2INNM=",
        b"%1LAMP=",
        b"ERR3",
        b"\r",
        b"\n",
        b" ",
        b"1920x1080",
        b"\xc3\xa9",
        b"\xff",
        b"=",
        b"%",
    ]);
    let piece = prop_oneof![words.prop_map(<[u8]>::to_vec), vec(any::<u8>(), 0..8)];
    vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn nothing_panics(bytes in likely(), query in queries()) {
        for line in lines(&[&bytes]) {
            let _ = parse_greeting(&line);
            let _ = parse_answer(&line, query);
            let _ = (Power::parse(&line), parse_errors(&line), parse_lamps(&line));
            let _ = (parse_class(&line), parse_flag(&line), parse_hours(&line));
            let _ = (parse_input(&line), parse_inputs(&line), parse_mute(&line));
            let _ = (parse_resolution(&line), parse_signal(&line));
        }
        let _ = Message::parse(&bytes);
    }

    #[test]
    fn lines_are_the_same_in_whatever_pieces(bytes in likely(), cut in any::<prop::sample::Index>()) {
        prop_assume!(bytes.len() <= LINE_MAX);
        let (first, second) = bytes.split_at(cut.index(bytes.len() + 1));
        prop_assert_eq!(lines(&[&bytes]), lines(&[first, second]));
    }

    #[test]
    fn a_greeting_is_read_back(random in "[0-9a-zA-Z]{1,32}") {
        for greeting in [Greeting::Open, Greeting::Locked(random.clone()), Greeting::Refused] {
            prop_assert_eq!(parse_greeting(&greeting.to_string()), Some(greeting));
        }
    }

    #[test]
    fn an_answer_is_read_back(query in queries(), text in "[!-~\u{e0}-\u{ff}]([ -~\u{e0}-\u{ff}]{0,60}[!-~])?") {
        let answers = [
            Answer::Value(text),
            Answer::Value(String::new()),
            Answer::Undefined,
            Answer::OutOfParameter,
            Answer::Unavailable,
            Answer::Failure,
            Answer::AuthenticationFailed,
        ];
        for answer in answers {
            // A text that spells an error is one.
            let spelt = answer.to_string().to_ascii_uppercase();
            if matches!(&answer, Answer::Value(_)) && spelt.starts_with("ERR") {
                continue;
            }
            let line = format!("%{}{}={answer}", query.class().digit(), query.code());
            prop_assert_eq!(parse_answer(&line, query), Some(answer));
        }
    }

    #[test]
    fn values_are_read_back(
        hours in vec((any::<u32>(), any::<bool>()), 1..=8),
        parts in vec(health(), PARTS.len()),
        (width, height) in any::<(u16, u16)>(),
        inputs in vec("[1-6][0-9A-Z]", 1..=50),
    ) {
        let lamps: Vec<String> = hours
            .iter()
            .map(|(hours, on)| format!("{hours} {}", u8::from(*on)))
            .collect();
        let read = parse_lamps(&lamps.join(" ")).unwrap();
        let read: Vec<(u32, bool)> = read.iter().map(|lamp| (lamp.hours, lamp.on)).collect();
        prop_assert_eq!(read, hours);

        let digits: String = parts.iter().map(|health| health.digit()).collect();
        prop_assert_eq!(parse_errors(&digits).unwrap().to_vec(), parts);

        let resolution = Resolution { width, height };
        prop_assert_eq!(
            parse_signal(&resolution.to_string()),
            Some(Signal::Picture(resolution))
        );
        let listed = inputs.join(" ");
        prop_assert_eq!(parse_inputs(&listed).unwrap(), inputs);
    }

    #[test]
    fn a_datagram_is_read_back(
        mac in mac(),
        parts in vec(health(), PARTS.len()),
        power in power(),
        input in "[1-6][0-9A-Z]",
    ) {
        for message in [
            Message::Found(mac),
            Message::LinkUp(mac),
            Message::Errors(parts.clone().try_into().unwrap()),
            Message::Power(power),
            Message::Input(input.clone()),
        ] {
            let datagram = format!("{message}\r");
            prop_assert_eq!(Message::parse(datagram.as_bytes()), Some(message));
        }
    }
}
