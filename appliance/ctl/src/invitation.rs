//! Invitations on the command line: printed alone on stdout so that they can be piped, and read
//! from an argument, a file or stdin. The secret in them is good for one use and is never shown in
//! a message.

use crate::{
    cli::Context,
    failure::{Done, Failure, Outcome, while_doing},
    place::{CARRY_OUT, Daemon},
    wording::distance,
};
use anyhow::Context as _;
use dtn_api::{
    Name, Span,
    client::{decode_invitation, encode_invitation},
    domain::{Invitation, InviteKind, InviteRequest},
};
use std::io::Read;

/// Options of `domain invite`, `host invite` and `cluster invite`.
#[derive(Debug, clap::Args)]
pub(crate) struct InviteArgs {
    /// Who is invited, by name
    name: Name,
    /// How long the invitation can be used; at most 1d
    #[arg(long, value_name = "SPAN", default_value = "1h")]
    valid: Span,
}

/// Where an invitation is read from.
#[derive(Debug, clap::Args)]
pub(crate) struct InvitationArg {
    /// The invitation itself, a file with it, or - for stdin
    ///
    /// The text of a command line can be seen by every user of the machine while it runs: where
    /// that matters, give a file or - instead.
    #[arg(value_name = "INVITATION")]
    invitation: String,
}

/// Asks the controller of this host for an invitation and prints it.
pub(crate) async fn invite(kind: InviteKind, args: &InviteArgs, context: &Context) -> Outcome {
    let noun = match kind {
        InviteKind::Domain => "domain",
        InviteKind::Host => "host",
        InviteKind::Cluster => "cluster",
    };
    let seconds = u32::try_from(args.valid.seconds())
        .map_err(|_| Failure::Usage(format!("--valid {}: at most 1d", args.valid)))?;
    let request = InviteRequest {
        kind,
        name: args.name.clone(),
        valid_seconds: seconds,
    };
    let link = context.place.connect(Daemon::Vdnd, CARRY_OUT)?;
    let answer = link
        .post_once("/invitations", &request)
        .await
        .map_err(|error| while_doing(format!("inviting {noun} {}", args.name), error))?;
    if context.json {
        return crate::answer::json(&answer);
    }
    let invitation: Invitation = crate::answer::read(&answer, "the invitation")?;
    let there = match kind {
        InviteKind::Domain => "on the controller of the other domain: dtnctl domain accept -",
        InviteKind::Host => "on the host that joins: dtnctl host join -",
        InviteKind::Cluster => "where its Secret is made: dtn-cluster join -",
    };
    Ok(
        Done::text(encode_invitation(&invitation) + "\n").next(format!(
            "give this one word to {} by a way that only they read (it is good for one use, \
             expires {}), and there, {there}",
            invitation.name,
            distance(invitation.expires_at, context.now),
        )),
    )
}

/// The invitation that an argument means, if it is of this kind and not over.
pub(crate) fn given(
    arg: &InvitationArg,
    kind: InviteKind,
    context: &Context,
) -> Result<Invitation, Failure> {
    let text = text_of(&arg.invitation)?;
    let invitation = decode_invitation(&text).map_err(Failure::because)?;
    if invitation.kind != kind {
        let command = context.place.command();
        let verb = match invitation.kind {
            InviteKind::Domain => format!("{command} domain accept"),
            InviteKind::Host => format!("{command} host join"),
            InviteKind::Cluster => "dtn-cluster join".to_owned(),
        };
        return Err(Failure::Usage(format!(
            "this invitation is for another verb: {verb}"
        )));
    }
    if invitation.expires_at <= context.now {
        return Err(Failure::because(format!(
            "the invitation of domain {} expired {}",
            invitation.domain,
            distance(invitation.expires_at, context.now)
        ))
        .or_next("ask for a new one"));
    }
    Ok(invitation)
}

fn text_of(argument: &str) -> anyhow::Result<String> {
    // an invitation is a few hundred bytes; a wrong file may be anything
    const LONGEST: u64 = 64 << 10;
    if argument.starts_with("dtn-invitation.") {
        return Ok(argument.to_owned());
    }
    let mut text = String::new();
    if argument == "-" {
        std::io::stdin()
            .take(LONGEST)
            .read_to_string(&mut text)
            .context("reading the invitation from stdin")?;
    } else {
        std::fs::File::open(argument)
            .and_then(|file| file.take(LONGEST).read_to_string(&mut text))
            .with_context(|| format!("reading the invitation from the file {argument:?}"))?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::Place;

    fn context(now: &str) -> Context {
        Context {
            place: Place::host("/".into()),
            json: false,
            now: now.parse().unwrap(),
            watched: false,
        }
    }
    fn invitation(kind: InviteKind) -> Invitation {
        Invitation {
            kind,
            domain: "daejeon".parse().unwrap(),
            name: "busan".parse().unwrap(),
            url: "https://192.0.2.1:7443".into(),
            ca_pin: "00".repeat(32),
            secret: "very-secret".into(),
            expires_at: "2027-01-10T07:00:00Z".parse().unwrap(),
        }
    }
    fn argument(text: &str) -> InvitationArg {
        InvitationArg {
            invitation: text.to_owned(),
        }
    }

    #[test]
    fn an_invitation_is_taken_from_text_and_file() {
        let asked = invitation(InviteKind::Domain);
        let text = encode_invitation(&asked);
        let now = context("2027-01-10T06:00:00Z");
        let read = given(&argument(&text), InviteKind::Domain, &now).unwrap();
        assert_eq!(read, asked);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text + "\n").unwrap();
        let path = argument(file.path().to_str().unwrap());
        assert_eq!(given(&path, InviteKind::Domain, &now).unwrap(), asked);
    }

    #[test]
    fn what_cannot_work_is_refused_before_anybody_is_asked() {
        let text = encode_invitation(&invitation(InviteKind::Host));
        let now = context("2027-01-10T06:00:00Z");
        let wrong = given(&argument(&text), InviteKind::Domain, &now).unwrap_err();
        assert!(wrong.message().contains("dtnctl host join"), "{wrong:?}");
        assert_eq!(wrong.code(), 2);
        let late = context("2027-01-10T08:00:00Z");
        let late = given(&argument(&text), InviteKind::Host, &late).unwrap_err();
        assert_eq!(
            late.message(),
            "dtnctl: the invitation of domain daejeon expired 1h ago\nnext: ask for a new one\n"
        );
        let cut = given(&argument(&text[..40]), InviteKind::Host, &now).unwrap_err();
        assert!(cut.message().contains("not whole"), "{cut:?}");
        assert!(!format!("{wrong:?}{late:?}{cut:?}").contains("very-secret"));
        let none = given(&argument("/no/such/file"), InviteKind::Host, &now).unwrap_err();
        assert!(none.message().contains("/no/such/file"), "{none:?}");
    }
}
