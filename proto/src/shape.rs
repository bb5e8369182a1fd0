//! Which fields a settings document has, read from the structure that reads it.
//!
//! A structure's derived reader names its fields to whatever it reads from.
//! [`shape_of`] lets it read from nothing and takes these names down, so that
//! a field is declared once: where it is read.

use serde::de::value::{Error, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess,
    SeqAccess, Visitor,
};

/// What a JSON value may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Anything: a plain value, or an object whose names are the user's.
    Any,
    /// Items, each of this shape.
    List(Box<Shape>),
    /// These fields.
    Fields(Vec<(&'static str, Shape)>),
}

impl Shape {
    /// The same with another field, where there is none of this name.
    pub(crate) fn with(mut self, name: &'static str, shape: Self) -> Self {
        if let Self::Fields(fields) = &mut self {
            if fields.iter().all(|(known, _)| *known != name) {
                fields.push((name, shape));
            }
        }
        self
    }
}

/// The shape of the documents that are read into a `T`.
pub(crate) fn shape_of<T: DeserializeOwned>() -> Shape {
    shape_at::<T>(&mut Vec::new())
}

/// A step from a value to one inside it.
#[derive(Debug, Clone, Copy)]
enum Step {
    Field(&'static str),
    Item,
}

/// What is at the end of a path.
enum Found {
    Value,
    List,
    Fields(&'static [&'static str]),
}

fn shape_at<T: DeserializeOwned>(path: &mut Vec<Step>) -> Shape {
    let mut found = Found::Value;
    // It always fails: there is no value to read.
    let _ = T::deserialize(Look {
        path,
        found: &mut found,
    });
    let mut inside = |step| {
        path.push(step);
        let shape = shape_at::<T>(path);
        path.pop();
        shape
    };
    match found {
        Found::Value => Shape::Any,
        Found::List => Shape::List(Box::new(inside(Step::Item))),
        Found::Fields(names) => Shape::Fields(
            names
                .iter()
                .map(|name| (*name, inside(Step::Field(name))))
                .collect(),
        ),
    }
}

/// Goes along a path, and takes down what is asked for at its end.
struct Look<'a> {
    path: &'a [Step],
    found: &'a mut Found,
}

impl Look<'_> {
    fn end<T>(self, found: Found) -> Result<T, Error> {
        *self.found = found;
        Err(Error::custom("there is nothing to read"))
    }
}

macro_rules! values {
    ($($read:ident)*) => {$(
        fn $read<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            self.end(Found::Value)
        }
    )*};
}

impl<'de> Deserializer<'de> for Look<'_> {
    type Error = Error;

    values! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32
        deserialize_i64 deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32
        deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char
        deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf
        deserialize_unit deserialize_map deserialize_identifier deserialize_ignored_any
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.path {
            [Step::Item, ..] => visitor.visit_seq(Inside(self)),
            _ => self.end(Found::List),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.path {
            [Step::Field(_), ..] => visitor.visit_map(Inside(self)),
            _ => self.end(Found::Fields(fields)),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _visitor: V,
    ) -> Result<V::Value, Error> {
        self.end(Found::Value)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _length: usize,
        _visitor: V,
    ) -> Result<V::Value, Error> {
        self.end(Found::Value)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _length: usize,
        _visitor: V,
    ) -> Result<V::Value, Error> {
        self.end(Found::Value)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Error> {
        self.end(Found::Value)
    }
}

/// The one member of an object, or the one item of a list, that the path's
/// first step names.
struct Inside<'a>(Look<'a>);

impl Inside<'_> {
    fn step<'de, S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(Look {
            path: self.0.path.get(1..).unwrap_or_default(),
            found: self.0.found,
        })
    }
}

impl<'de> MapAccess<'de> for Inside<'_> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        match self.0.path.first() {
            Some(Step::Field(name)) => {
                let name: StrDeserializer<'_, Error> = name.into_deserializer();
                seed.deserialize(name).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        self.step(seed)
    }
}

impl<'de> SeqAccess<'de> for Inside<'_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        self.step(seed).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::Value;
    use serde_json::value::RawValue;

    use super::*;
    use crate::secret::Secret;

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its fields' names are looked at")]
    struct Outer {
        port: Option<i64>,
        #[serde(rename = "type")]
        kind: Option<Kind>,
        secret: Secret,
        inner: Option<Inner>,
        items: Option<Vec<Inner>>,
        words: Vec<String>,
        own: BTreeMap<String, Inner>,
        any: Option<Value>,
        raw: Option<Box<RawValue>>,
        either: Either,
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its fields' names are looked at")]
    struct Inner {
        #[serde(default)]
        deep: Option<Deep>,
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its fields' names are looked at")]
    struct Deep {
        max: f64,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        A,
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    #[expect(dead_code, reason = "only its fields' names are looked at")]
    enum Either {
        Number(i64),
        Text(String),
    }

    #[test]
    fn a_structure_tells_its_fields_at_every_depth() {
        let inner = || Shape::Fields(vec![("deep", Shape::Fields(vec![("max", Shape::Any)]))]);
        let list = |item| Shape::List(Box::new(item));
        assert_eq!(
            shape_of::<Outer>(),
            Shape::Fields(vec![
                ("port", Shape::Any),
                ("type", Shape::Any),
                ("secret", Shape::Any),
                ("inner", inner()),
                ("items", list(inner())),
                ("words", list(Shape::Any)),
                ("own", Shape::Any),
                ("any", Shape::Any),
                ("raw", Shape::Any),
                ("either", Shape::Any),
            ])
        );
        assert_eq!(shape_of::<Vec<Deep>>(), list(shape_of::<Deep>()));
        assert_eq!(shape_of::<Kind>(), Shape::Any);
    }

    #[test]
    fn a_field_is_added_once() {
        let one = shape_of::<Deep>().with("min", Shape::Any);
        let two = Shape::Fields(vec![("max", Shape::Any), ("min", Shape::Any)]);
        assert_eq!(one, two);
        assert_eq!(one.with("max", shape_of::<Inner>()), two);
        assert_eq!(Shape::Any.with("min", Shape::Any), Shape::Any);
    }
}
