"""The error codes of the service as data: the exception, the meaning and the advice of each."""

from __future__ import annotations

from typing import NamedTuple

from airflow_modelarts.api import errors

_AUTH, _CONFIGURATION = errors.ModelArtsAuthenticationError, errors.ModelArtsConfigurationError
_REQUEST, _NOT_FOUND = errors.ModelArtsRequestError, errors.ModelArtsNotFoundError
_EXISTS, _BUSY = errors.ModelArtsAlreadyExistsError, errors.ModelArtsBusyError
_THROTTLED, _TRANSIENT = errors.ModelArtsThrottledError, errors.ModelArtsTransientError


class Code(NamedTuple):
    """The meaning of an error code.

    :param kind: the exception that it becomes.
    :param meaning: what went wrong.
    :param advice: what to change; None for the ``default_advice`` of the exception.
    """

    kind: type[errors.ModelArtsError]
    meaning: str
    advice: str | None = None


_RENEW = (
    "Check that the credentials of the connection are still valid; tokens end early when a password or a right changes"
)
_ACCOUNT = "Check the balance and the state of the Huawei Cloud account"
_AGENCY = (
    "Check in the ModelArts console, under permission management, that this user has an agency, and that it may use OBS"
)
_PERMISSION = "Give the user of the connection the permission for this in IAM"
_PROJECT = "Check that project_id, host and region of the connection belong together, and to these credentials"
_OBS = "Check the path, that the bucket is in the region of the project, and that ModelArts may read and write it"
_DATASET = "Check the dataset and its version in the ModelArts console"
_QUOTA = "Delete what is no longer needed, or have the quota raised; waiting does not help"
_FULL = "Try again when some of the project's tasks have ended, or have the quota raised"
_STILL_BUSY = "Try again when that has ended"
_ADDRESS = "Check the host of the connection: it must be the ModelArts endpoint of your region"
_TASK_RESULT = "Read the error_msg of the task"

#: The error codes that the operations of processing tasks can return, by the reference's table of errors.
CODES: dict[str, Code] = {
    "APIGW.0101": Code(_CONFIGURATION, "there is no such API at this address"),
    "APIGW.0201": Code(_TRANSIENT, "the backend did not answer the gateway in time"),
    "APIGW.0301": Code(_AUTH, "the gateway refused the credentials: wrong key, wrong signature, or an expired token"),
    "APIG.0301": Code(_AUTH, "the gateway refused the credentials: wrong key, wrong signature, or an expired token"),
    "APIGW.0303": Code(_AUTH, "the credentials were refused, which a clock more than 15 minutes off can cause too"),
    "APIGW.0307": Code(_AUTH, "the token must be renewed", _RENEW),
    "APIG.0307": Code(_AUTH, "the token must be renewed", _RENEW),
    "APIGW.0308": Code(_THROTTLED, "the gateway throttles this caller"),
    "APIG.0308": Code(_THROTTLED, "the gateway throttles this caller"),
    "ModelArts.0101": Code(_REQUEST, "an argument is not valid"),
    "ModelArts.0102": Code(_REQUEST, "the workspace does not exist", "Check workspace_id"),
    "ModelArts.0104": Code(_REQUEST, "a parameter is wrong"),
    "ModelArts.0107": Code(_REQUEST, "values of request parameters are not valid"),
    "ModelArts.0108": Code(_AUTH, "this user may not do that", _PERMISSION),
    "ModelArts.0112": Code(_AUTH, "a policy forbids it", _PERMISSION),
    "ModelArts.0116": Code(_REQUEST, "a quota would be exceeded", _QUOTA),
    "ModelArts.0118": Code(_REQUEST, "a quota is used up", _QUOTA),
    "ModelArts.0201": Code(_AUTH, "the token does not exist", _RENEW),
    "ModelArts.0202": Code(_AUTH, "the token has expired", _RENEW),
    "ModelArts.0203": Code(_AUTH, "the token is not valid", _RENEW),
    "ModelArts.0204": Code(_AUTH, "the token is not scoped to a project", _PROJECT),
    "ModelArts.0205": Code(_AUTH, "the request had no Authorization header, which a proxy may have removed"),
    "ModelArts.0206": Code(_AUTH, "the access key is not valid", _RENEW),
    "ModelArts.0207": Code(_AUTH, "the token is not for a project of this region", _PROJECT),
    "ModelArts.0208": Code(_AUTH, "the Authorization header could not be checked"),
    "ModelArts.0210": Code(_CONFIGURATION, "the project id is not valid"),
    "ModelArts.0212": Code(_AUTH, "the token is not scoped to a project", _PROJECT),
    "ModelArts.0420": Code(_AUTH, "the agency cannot be read", _AGENCY),
    "ModelArts.0421": Code(_AUTH, "the agency cannot be created", _AGENCY),
    "ModelArts.0423": Code(_AUTH, "the service statement is not agreed to", "Agree to it in the ModelArts console"),
    "ModelArts.0427": Code(_AUTH, "the authorization of this user cannot be read", _AGENCY),
    "ModelArts.0428": Code(_AUTH, "the agency or the authorization of this user is missing", _AGENCY),
    "ModelArts.0429": Code(_AUTH, "this user has no authorization", _AGENCY),
    "ModelArts.0430": Code(_AUTH, "the rights of the agency cannot be read", _AGENCY),
    "ModelArts.4102": Code(_AUTH, "the service's own agency te_agency is missing", _AGENCY),
    "ModelArts.4104": Code(_REQUEST, "the request body is too large"),
    "ModelArts.4105": Code(_REQUEST, "the request is not the JSON that the service expects"),
    "ModelArts.4106": Code(_AUTH, "the account is restricted", _ACCOUNT),
    "ModelArts.4111": Code(_CONFIGURATION, "the region is not valid"),
    "ModelArts.4116": Code(_AUTH, "the account is in arrears", _ACCOUNT),
    "ModelArts.4117": Code(_AUTH, "the account is not verified", _ACCOUNT),
    "ModelArts.4118": Code(_AUTH, "the account is suspended", _ACCOUNT),
    "ModelArts.4119": Code(_AUTH, "the role of this user is not valid", _PERMISSION),
    "ModelArts.4126": Code(_AUTH, "the account is locked", _ACCOUNT),
    "ModelArts.4127": Code(_AUTH, "the token has expired", _RENEW),
    "ModelArts.4129": Code(_TRANSIENT, "the service has a fault of its own"),
    "ModelArts.4201": Code(_CONFIGURATION, "the address names no service", _ADDRESS),
    "ModelArts.4204": Code(_REQUEST, "the service could not carry out the request"),
    "ModelArts.4205": Code(_REQUEST, "the input or output path must be a folder of the bucket", _OBS),
    "ModelArts.4206": Code(_THROTTLED, "the service gets too many requests"),
    "ModelArts.4310": Code(_AUTH, "OBS refuses ModelArts", _AGENCY),
    "ModelArts.4311": Code(_REQUEST, "the OBS bucket does not exist", _OBS),
    "ModelArts.4312": Code(_REQUEST, "the OBS path does not exist", _OBS),
    "ModelArts.4313": Code(_REQUEST, "the OBS path is not valid", _OBS),
    "ModelArts.4314": Code(_REQUEST, "OBS answered with an error", _OBS),
    "ModelArts.4315": Code(_REQUEST, "the OBS path is not valid", _OBS),
    "ModelArts.4316": Code(_REQUEST, "a bucket alone is not supported as a path", _OBS),
    "ModelArts.4335": Code(_AUTH, "the agency is not valid", _AGENCY),
    "ModelArts.4336": Code(_AUTH, "this user lacks a permission", _PERMISSION),
    "ModelArts.4338": Code(_REQUEST, "a resource that the request names does not exist"),
    "ModelArts.4340": Code(_REQUEST, "the path holds no valid file", _OBS),
    "ModelArts.4343": Code(_BUSY, "a version of the dataset is being published", _STILL_BUSY),
    "ModelArts.4344": Code(_REQUEST, "the dataset is being deleted", _DATASET),
    "ModelArts.4345": Code(_REQUEST, "a file does not exist", _OBS),
    "ModelArts.4347": Code(_REQUEST, "the files could not be listed", _OBS),
    "ModelArts.4349": Code(_BUSY, "the dataset is switching its version", _STILL_BUSY),
    "ModelArts.4350": Code(_REQUEST, "the work_path is too long", "Choose a shorter folder for work_path"),
    "ModelArts.4352": Code(_REQUEST, "the dataset does not exist", _DATASET),
    "ModelArts.4353": Code(_REQUEST, "the dataset version does not exist", _DATASET),
    "ModelArts.4355": Code(_BUSY, "the dataset is being synchronized", _STILL_BUSY),
    "ModelArts.4356": Code(_BUSY, "the dataset has a running import", _STILL_BUSY),
    "ModelArts.4364": Code(_REQUEST, "the folder in work_path exists already", "Choose another folder for work_path"),
    "ModelArts.4365": Code(_REQUEST, "the dataset has no labels", _DATASET),
    "ModelArts.4370": Code(_BUSY, "a dataset can have one new version a minute", "Try again after a minute"),
    "ModelArts.4371": Code(_REQUEST, "the dataset version exists already", "Choose another version_name in work_path"),
    "ModelArts.4372": Code(_REQUEST, "the input has no valid image", _OBS),
    "ModelArts.4374": Code(_REQUEST, "a path is not valid", _OBS),
    "ModelArts.4381": Code(_BUSY, "a version of the dataset is being published", _STILL_BUSY),
    "ModelArts.4391": Code(_REQUEST, "the name of the task is not valid", "Choose another name"),
    "ModelArts.4392": Code(_REQUEST, "the task failed", _TASK_RESULT),
    "ModelArts.4393": Code(_REQUEST, "the task was stopped", _TASK_RESULT),
    "ModelArts.4395": Code(_THROTTLED, "the service gets too many requests for datasets"),
    "ModelArts.4396": Code(_REQUEST, "a parameter is not valid"),
    "ModelArts.4409": Code(_BUSY, "the limit of running tasks is reached", _FULL),
    "ModelArts.4419": Code(_REQUEST, "a file of the input is too large", _OBS),
    "ModelArts.4420": Code(_REQUEST, "a sample does not exist", _DATASET),
    "ModelArts.4500": Code(_AUTH, "the account has as many agencies as it may have", _AGENCY),
    "ModelArts.4501": Code(_AUTH, "this user may not create an agency", _AGENCY),
    "ModelArts.4502": Code(_AUTH, "an agency of this name exists already", _AGENCY),
    "ModelArts.4552": Code(_REQUEST, "the workspace cannot be used", "Check workspace_id"),
    "ModelArts.4612": Code(_NOT_FOUND, "no task with this id"),
    "ModelArts.4613": Code(_BUSY, "the task has not finished", "Wait for the task first"),
    "ModelArts.4614": Code(_REQUEST, "the task failed", _TASK_RESULT),
    "ModelArts.4616": Code(_BUSY, "too many unfinished tasks", _FULL),
    "ModelArts.4631": Code(_NOT_FOUND, "no task with this id"),
    "ModelArts.4636": Code(_NOT_FOUND, "no task with this id"),
    "ModelArts.4700": Code(_NOT_FOUND, "no task with this id"),
    "ModelArts.4701": Code(
        _REQUEST, "feature analysis needs an image classification or object detection dataset version", _DATASET
    ),
    "ModelArts.4702": Code(_REQUEST, "feature analysis needs a dataset version in the Default format", _DATASET),
    "ModelArts.4703": Code(_REQUEST, "feature analysis needs labeled samples in the dataset version", _DATASET),
    "ModelArts.4704": Code(_BUSY, "a dataset version is being published", _STILL_BUSY),
    "ModelArts.4705": Code(_REQUEST, "a file of the input is too large", _OBS),
    "ModelArts.4706": Code(_REQUEST, "the dataset version is not in the normal state", _DATASET),
    "ModelArts.4707": Code(_REQUEST, "a file cannot be read from OBS", _OBS),
    "ModelArts.4709": Code(_EXISTS, "a processing task of this name exists already"),
    "ModelArts.4714": Code(_REQUEST, "the dataset has as many versions as it may have", _QUOTA),
    "ModelArts.4715": Code(_REQUEST, "the stored analysis result is incorrect", "Run the feature analysis again"),
    "ModelArts.4750": Code(_REQUEST, "a file cannot be read from OBS", _OBS),
    "ModelArts.4803": Code(_REQUEST, "the dataset has unfinished label tasks", "Finish or delete its label tasks"),
    "ModelArts.4821": Code(_BUSY, "the task is being published", _STILL_BUSY),
    "ModelArts.4824": Code(_REQUEST, "the dataset version is not in the normal state", _DATASET),
    "ModelArts.4825": Code(_REQUEST, "the dataset version is empty", _DATASET),
    "ModelArts.4826": Code(
        _REQUEST, "the bucket is encrypted with KMS, which is not supported", "Choose a bucket without KMS encryption"
    ),
    "ModelArts.4827": Code(_REQUEST, "the dataset version could not be deleted", _DATASET),
    "ModelArts.4828": Code(_REQUEST, "the version could not be deleted"),
    "ModelArts.4850": Code(
        _BUSY, "the task is initializing, and the operation is forbidden until it is not", "Try again when it runs"
    ),
    "ModelArts.4851": Code(_NOT_FOUND, "no version with this id", "Check the id of the version, and that of its task"),
    "ModelArts.4853": Code(_REQUEST, "the quota of data processing tasks is used up", _QUOTA),
    "ModelArts.4854": Code(_REQUEST, "the quota of versions of data processing tasks is used up", _QUOTA),
    "ModelArts.4870": Code(_TRANSIENT, "the database of the service has a fault"),
    "ModelArts.4905": Code(_AUTH, "the Authorization header could not be checked"),
    "ModelArts.4992": Code(_BUSY, "the computing resources are sold out", "Try again when some are free"),
    "ModelArts.4999": Code(_TRANSIENT, "the service has a fault of its own"),
}

#: Codes whose meaning depends on the HTTP status; these entries precede those of ``CODES``.
CODES_WITH_STATUS: dict[tuple[str, int], Code] = {
    ("ModelArts.0204", 401): Code(_AUTH, "the token cannot be read", _RENEW),
    ("ModelArts.0206", 401): Code(_AUTH, "the Authorization header is malformed, which a proxy may have changed"),
    ("ModelArts.0210", 403): Code(_CONFIGURATION, "the credentials are for another project than project_id", _PROJECT),
    ("ModelArts.0428", 400): Code(_AUTH, "the agency cannot be changed", _AGENCY),
    ("ModelArts.4201", 401): Code(_AUTH, "the token is not valid", _RENEW),
    ("ModelArts.4204", 404): Code(_CONFIGURATION, "there is no such API at this address", _ADDRESS),
    ("ModelArts.4205", 408): Code(_TRANSIENT, "the service did not answer in time"),
    ("ModelArts.4901", 404): Code(_CONFIGURATION, "there is no such API at this address", _ADDRESS),
}


def find_code(code: str | None, http_status: int) -> Code | None:
    """Return the meaning of an error code.

    The code decides, since one HTTP status stands for many errors. With a status of 500 or more only the status counts.
    """
    if code is None or http_status >= 500:
        return None
    return CODES_WITH_STATUS.get((code, http_status)) or CODES.get(code)
