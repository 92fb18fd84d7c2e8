"""The core: answers or dispatches every call, and relays what servers send to the clients concerned."""
