// The page's script: Crossmint's client, configured as its documentation says, with what it reports.
import { CrossmintAuth, createCrossmint } from "@crossmint/client-sdk-auth";

let report;
// Its first report: the client refreshes the session when the page is loaded.
window.loaded = new Promise((resolve) => (report = resolve));

window.client = CrossmintAuth.from(createCrossmint({ apiKey: document.currentScript.dataset.apiKey }), {
    refreshRoute: "/api/auth/refresh",
    logoutRoute: location.search === "?own-logout" ? undefined : "/api/auth/logout",
    callbacks: {
        onTokenRefresh: (material) => report(material),
        onLogout: () => report("signed out"),
    },
});
