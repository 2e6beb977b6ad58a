// Shows /openapi.json; a file of its own, since the content security policy allows no script within a page.
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#docs", deepLinking: true, presets: [SwaggerUIBundle.presets.apis] });
