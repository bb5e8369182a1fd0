//! What the API says of errors, in French, for the scripts of French pages.
//!
//! The API speaks English: programs read it. What is not here is shown as it
//! is.

/// The API's words with the French ones, `{}` standing for any text. The first
/// that fits counts: what is longer stands before what it contains.
pub(super) const PROBLEMS: &[(&str, &str)] = &[
    ("is missing", "manque"),
    ("is empty", "est vide"),
    ("has more than {} characters", "a plus de {} caractères"),
    ("has less than {} characters", "a moins de {} caractères"),
    ("has more than {} bytes", "a plus de {} octets"),
    (
        "has a control character",
        "contient un caractère de contrôle",
    ),
    ("has a NUL character", "contient un caractère NUL"),
    (
        "begins or ends with a space",
        "commence ou finit par une espace",
    ),
    ("is the user's name", "est le nom de l'utilisateur"),
    ("is not the password", "n'est pas le mot de passe"),
    (
        "is that of another user",
        "est celui d'un autre utilisateur",
    ),
    (
        "is that of another of your tokens",
        "est celui d'un autre de vos jetons",
    ),
    ("is that of another site", "est celui d'un autre site"),
    (
        "is that of another device of this site",
        "est celle d'un autre équipement de ce site",
    ),
    ("is another channel's", "est celui d'un autre canal"),
    ("is that of row {} already", "est déjà celle de la ligne {}"),
    ("{} is not an IP address", "{} n'est pas une adresse IP"),
    (
        "{} is not a port (1 to 65535)",
        "{} n'est pas un port (1 à 65535)",
    ),
    (
        "{} is not between {} and {} seconds",
        "{} n'est pas entre {} et {} secondes",
    ),
    ("{} is not between {} and {}", "{} n'est pas entre {} et {}"),
    ("is not between {} and {}", "n'est pas entre {} et {}"),
    (
        "is not from {} to {} bytes long",
        "n'a pas de {} à {} octets",
    ),
    ("is not from {} to {}", "n'est pas entre {} et {}"),
    (
        "is not a whole number from {} to {}",
        "n'est pas un nombre entier de {} à {}",
    ),
    (
        "{} is not above 0 and at most 60 seconds",
        "{} n'est pas supérieur à 0 et d'au plus 60 secondes",
    ),
    (
        "{} is not a number of seconds",
        "{} n'est pas un nombre de secondes",
    ),
    (
        "is not 1 to 32 printable ASCII characters",
        "n'est pas fait de 1 à 32 caractères ASCII imprimables",
    ),
    (
        "{} is not an IANA time zone, such as Europe/Paris",
        "{} n'est pas un fuseau horaire IANA tel que Europe/Paris",
    ),
    (
        "{} is not an IANA time zone",
        "{} n'est pas un fuseau horaire IANA",
    ),
    (
        "is not an IANA time zone",
        "n'est pas un fuseau horaire IANA",
    ),
    (
        "{} is not a time such as 08:00",
        "{} n'est pas une heure telle que 08:00",
    ),
    (
        "is not a time such as 22:00",
        "n'est pas une heure telle que 22:00",
    ),
    ("is not after starts_at", "n'est pas après le début"),
    (
        "is more than {} days after starts_at",
        "est plus de {} jours après le début",
    ),
    ("is before 1970", "est avant 1970"),
    (
        "is missing: quiet hours have both",
        "manque : les heures de silence ont un début et une fin",
    ),
    (
        "is missing: it signs the messages",
        "manque : elle signe les messages",
    ),
    (
        "are not from 1 to 100 mail addresses",
        "ne sont pas de 1 à 100 adresses de courriel",
    ),
    ("is not a mail address", "n'est pas une adresse de courriel"),
    (
        "does not start with http:// or https://",
        "ne commence pas par http:// ou https://",
    ),
    ("has no host", "n'a pas d'hôte"),
    (
        "has a user name: the signature says who sends",
        "contient un nom d'utilisateur : la signature dit qui envoie",
    ),
    ("is not a URL", "n'est pas une URL"),
    ("is not warning or critical", "n'est ni warning ni critical"),
    (
        "is masked, and no secret is stored that it could stand for",
        "est masqué, et aucun secret n'est enregistré à sa place",
    ),
    (
        "is a text, not a whole number",
        "est un texte, pas un nombre entier",
    ),
    ("is a text, not a number", "est un texte, pas un nombre"),
    (
        "is a number that is not whole, not a whole number",
        "n'est pas un nombre entier",
    ),
    (
        "is not a column; they are {}",
        "n'est pas une colonne ; ce sont {}",
    ),
    ("is there twice", "est présente deux fois"),
    (
        "has {} cells, and the first line {}",
        "a {} cellules, et la première ligne {}",
    ),
    ("is not JSON: {}", "n'est pas du JSON : {}"),
    ("is not an object", "n'est pas un objet"),
    (
        "is not a known setting; the nearest is {}",
        "n'est pas un réglage connu ; le plus proche est {}",
    ),
    ("is not a known setting", "n'est pas un réglage connu"),
    ("unknown field {}", "champ inconnu {}"),
    (
        "{} fields are not valid; nothing was changed",
        "{} champs ne conviennent pas ; rien n'a été modifié",
    ),
    ("{} fields are not valid", "{} champs ne conviennent pas"),
    ("the channel is not enabled", "le canal est inactif"),
    ("there is no such {}", "cela n'existe plus ({})"),
    (
        "this takes the role {}, and yours is {}",
        "cela demande le rôle {}, et le vôtre est {}",
    ),
    (
        "{} is none that an agent of this version has: it will not be probed",
        "{} n'est connu d'aucun agent de cette version : l'équipement ne sera pas interrogé",
    ),
    (
        "the file is not UTF-8: save it as \"CSV UTF-8\" in the spreadsheet",
        "le fichier n'est pas en UTF-8 : enregistrez-le en « CSV UTF-8 » dans le tableur",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_one_that_the_api_has() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut text = String::new();
        let mut folders = vec![root.join("src/admin"), root.join("../proto/src")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.ends_with("pages") {
                    folders.push(path);
                } else if path.extension().is_some_and(|ending| ending == "rs") {
                    text.push_str(&std::fs::read_to_string(path).unwrap());
                }
            }
        }
        // Values are named in the sources, and serde has words of its own.
        let mut plain = String::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            plain.push_str(before);
            match after.split_once('}') {
                Some((name, after)) if name.len() < 60 && !name.contains(['{', '\n', ' ']) => {
                    plain.push_str("{}");
                    rest = after;
                }
                _ => {
                    plain.push('{');
                    rest = after;
                }
            }
        }
        plain.push_str(rest);
        let mut last = std::collections::HashSet::new();
        for (english, french) in PROBLEMS {
            assert!(last.insert(english), "{english} is there twice");
            assert_eq!(
                english.matches("{}").count(),
                french.matches("{}").count(),
                "{english}"
            );
            let words = english
                .split("{}")
                .max_by_key(|part| part.len())
                .unwrap_or_default()
                .replace('"', "\\\"");
            let serdes = english.starts_with("is a ") || english.starts_with("unknown field");
            assert!(serdes || plain.contains(&words), "{words}");
        }
    }
}
