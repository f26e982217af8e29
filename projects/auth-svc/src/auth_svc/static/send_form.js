// Sends the page's only form: an answer to the application that asked (OAuth 2.0 Form Post Response Mode).

document.forms[0].submit();
