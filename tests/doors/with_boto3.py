"""Users of a pool, with boto3 told nothing but an endpoint: BASE KEY HEADWATER."""

import base64
import contextlib
import json
import os
import subprocess
import sys

import boto3
import jwt
import requests
from botocore import UNSIGNED
from botocore.config import Config

base, key, headwater = sys.argv[1:]
pool_id, client_id, password = "eu-north-1_Buses", "app", "a password of the tests"
_, key_id, secret = key.split(".")


def administrator(secret):
    return boto3.client(
        "cognito-idp", region_name="eu-north-1", aws_access_key_id=key_id, aws_secret_access_key=secret
    )


# As the producer's README has it: only a region is named, and no credentials are there.
client = boto3.client("cognito-idp", region_name="eu-north-1")
unsigned = boto3.client("cognito-idp", region_name="eu-north-1", config=Config(signature_version=UNSIGNED))
admin = administrator(secret)


@contextlib.contextmanager
def refused(kind, code=None):
    try:
        yield
    except admin.exceptions.ClientError as error:
        found = (error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"])
        assert found == (kind, code or 400), error
        return
    raise AssertionError(f"{kind} is expected")


def sign_in(username, password):
    return client.initiate_auth(
        AuthFlow="USER_PASSWORD_AUTH",
        AuthParameters={"USERNAME": username, "PASSWORD": password},
        ClientId=client_id,
    )


def post(authorization):
    body = {
        "StreamName": "GpsCoordinatesStream",
        "Data": base64.b64encode(json.dumps({"longitude": "12.34567", "latitude": "76.54321"}).encode()).decode(),
        "PartitionKey": "17",
    }
    answer = requests.post(f"{base}/post-gps", json=body, headers={"Authorization": authorization}, timeout=10)
    return answer.status_code, answer.json()


def grant(username):
    answer = requests.put(
        f"{base}/api/v1/grants/gps_coordinates/{username}",
        json={"permissions": ["write"]},
        headers={"Authorization": f"Bearer {os.environ['HEADWATER_TOKEN']}"},
        timeout=10,
    )
    assert answer.ok, answer.text


# A mailer follows what users are to be told.
mailer = subprocess.Popen(
    [headwater, "--server", base, "follow", "user_messages/1", "--from-start"], stdout=subprocess.PIPE, text=True
)


def mail():
    return json.loads(mailer.stdout.readline())["value"]


success, unauthorized = (200, {"message": "Success"}), (401, {"message": "Unauthorized"})

# A user that an administrator makes, with a password for good.
made = admin.admin_create_user(UserPoolId=pool_id, Username="bus", MessageAction="SUPPRESS")["User"]
assert (made["Username"], made["UserStatus"], made["Enabled"]) == ("bus", "FORCE_CHANGE_PASSWORD", True), made
admin.admin_set_user_password(UserPoolId=pool_id, Username="bus", Password=password, Permanent=True)
with refused("UsernameExistsException"):
    admin.admin_create_user(UserPoolId=pool_id, Username="bus")
with refused("UnrecognizedClientException"):
    administrator(secret + "x").admin_create_user(UserPoolId=pool_id, Username="other")
with refused("MissingAuthenticationTokenException"):
    unsigned.admin_create_user(UserPoolId=pool_id, Username="other")
with refused("ResourceNotFoundException"):
    admin.admin_create_user(UserPoolId="eu-north-1_Trams", Username="other")

result = sign_in("bus", password)["AuthenticationResult"]
assert (result["TokenType"], result["ExpiresIn"]) == ("Bearer", 3_600), result
with refused("NotAuthorizedException"):
    sign_in("bus", "another password")

# Others check the token with the published keys.
issuer = f"{base}/user-pool/{pool_id}"
keys = jwt.PyJWKClient(requests.get(f"{issuer}/.well-known/openid-configuration", timeout=10).json()["jwks_uri"])
signing = keys.get_signing_key_from_jwt(result["IdToken"])
claims = jwt.decode(result["IdToken"], signing.key, algorithms=["RS256"], audience=client_id, issuer=issuer)
assert (claims["token_use"], claims["cognito:username"], claims["sub"]) == (
    "id", "bus", made["Attributes"][0]["Value"],
), claims
access = jwt.decode(result["AccessToken"], signing.key, algorithms=["RS256"], issuer=issuer)
assert (access["token_use"], access["client_id"], access["username"]) == ("access", client_id, "bus"), access

# It is a credential, as it is and as a bearer, of a user that may do what it was granted.
token = result["IdToken"]
assert post(token) == (403, {"message": "Forbidden"})
grant("bus")
assert post(token) == success
assert post(f"Bearer {token}") == success
head, body, signature = token.split(".")
access_body = result["AccessToken"].split(".")[1]
unsigned_head = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
for wrong in (
    result["AccessToken"],
    result["RefreshToken"],
    f"{head}.{body}.{signature[::-1]}",
    f"{unsigned_head}.{body}.",
    f"{head}.{access_body}.{signature}",
):
    assert post(wrong) == unauthorized, wrong

# It is renewed, and ended.
renewed = client.initiate_auth(
    AuthFlow="REFRESH_TOKEN_AUTH",
    AuthParameters={"REFRESH_TOKEN": result["RefreshToken"]},
    ClientId=client_id,
)["AuthenticationResult"]
assert "RefreshToken" not in renewed and post(renewed["IdToken"]) == success
with refused("UnsupportedTokenTypeException"):
    client.revoke_token(Token=token, ClientId=client_id)
client.revoke_token(Token=result["RefreshToken"], ClientId=client_id)
assert post(token) == unauthorized and post(renewed["IdToken"]) == unauthorized
with refused("NotAuthorizedException"):
    client.initiate_auth(
        AuthFlow="REFRESH_TOKEN_AUTH",
        AuthParameters={"REFRESH_TOKEN": result["RefreshToken"]},
        ClientId=client_id,
    )

# A user that gets an invitation chooses a password of its own.
admin.admin_create_user(
    UserPoolId=pool_id, Username="driver", UserAttributes=[{"Name": "email", "Value": "driver@example.com"}]
)
invitation = mail()
assert (invitation["kind"], invitation["username"]) == ("invitation", "driver"), invitation
assert invitation["attributes"] == {"email": "driver@example.com"}, invitation
challenge = sign_in("driver", invitation["temporary_password"])
assert challenge["ChallengeName"] == "NEW_PASSWORD_REQUIRED", challenge
with refused("InvalidPasswordException"):
    client.respond_to_auth_challenge(
        ClientId=client_id,
        ChallengeName="NEW_PASSWORD_REQUIRED",
        Session=challenge["Session"],
        ChallengeResponses={"USERNAME": "driver", "NEW_PASSWORD": "short"},
    )
done = client.respond_to_auth_challenge(
    ClientId=client_id,
    ChallengeName="NEW_PASSWORD_REQUIRED",
    Session=challenge["Session"],
    ChallengeResponses={"USERNAME": "driver", "NEW_PASSWORD": password},
)
grant("driver")
assert post(done["AuthenticationResult"]["IdToken"]) == success
with refused("NotAuthorizedException"):
    sign_in("driver", invitation["temporary_password"])

# One that signs up shows the code that it was sent.
signed_up = client.sign_up(
    ClientId=client_id,
    Username="rider+1@example.com",
    Password=password,
    UserAttributes=[{"Name": "email", "Value": "rider+1@example.com"}],
)
assert signed_up["UserConfirmed"] is False, signed_up
with refused("UserNotConfirmedException"):
    sign_in("rider+1@example.com", password)
code = mail()["code"]
with refused("CodeMismatchException"):
    wrong = f"{(int(code) + 1) % 1_000_000:06}"
    client.confirm_sign_up(ClientId=client_id, Username="rider+1@example.com", ConfirmationCode=wrong)
client.confirm_sign_up(ClientId=client_id, Username="rider+1@example.com", ConfirmationCode=code)
rider = sign_in("rider+1@example.com", password)["AuthenticationResult"]["IdToken"]
signing = keys.get_signing_key_from_jwt(rider)
claims = jwt.decode(rider, signing.key, algorithms=["RS256"], audience=client_id, issuer=issuer)
assert (claims["sub"], claims["email_verified"]) == (signed_up["UserSub"], True), claims
assert post(rider) == (403, {"message": "Forbidden"})

mailer.terminate()
print("all is as it should be")
